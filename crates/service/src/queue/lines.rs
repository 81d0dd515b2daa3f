//! What waits in one process: each tenant has a line of its own, and they take turns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Depth, Ticket};
use crate::task::TaskId;

/// The waiting tasks of one process. What is lost with it is queued again from the records.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Waiting>,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Tenants with somebody in line; the first is the next to be served.
    turns: VecDeque<String>,
    waiting: HashMap<String, VecDeque<Ticket>>,
    /// The tasks among them.
    tasks: HashSet<TaskId>,
    /// How many were taken and have not ended, by target and tenant.
    taken: HashMap<(Option<String>, String), usize>,
}

/// A task that was taken. With this, it ends.
#[derive(Debug)]
pub struct Taken {
    lines: Lines,
    line: (Option<String>, String),
}

impl Drop for Taken {
    fn drop(&mut self) {
        let taken = &mut self.lines.lines().taken;
        if let Some(count) = taken.get_mut(&self.line) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.line);
            }
        }
    }
}

impl Lines {
    /// Adds a task, unless it waits already.
    pub fn push(&self, ticket: Ticket) {
        self.lines().push(ticket);
        // Each worker may be able to do it.
        self.shared.pushed.notify_waiters();
    }

    /// Waits for a task whose target a worker holds.
    pub async fn take(&self, holds: impl Fn(&str) -> bool) -> (Ticket, Taken) {
        loop {
            let pushed = self.shared.pushed.notified();
            tokio::pin!(pushed);
            // What comes between the look and the wait is not missed.
            pushed.as_mut().enable();
            if let Some(taken) = self.try_take(|target| target.is_none_or(&holds)) {
                return taken;
            }
            pushed.await;
        }
    }

    /// Takes the next task for exactly this target, if there is one.
    pub fn withdraw(&self, target: &str) -> Option<(Ticket, Taken)> {
        self.try_take(|wanted| wanted == Some(target))
    }

    /// How many wait or were taken.
    pub fn depth(&self) -> Depth {
        let lines = self.lines();
        let waiting = lines.waiting.values().flatten();
        let waiting = waiting.map(|ticket| (line_of(ticket), 1));
        let taken = lines
            .taken
            .iter()
            .map(|(line, count)| (line.clone(), *count));
        waiting.chain(taken).collect()
    }

    fn try_take(&self, can: impl Fn(Option<&str>) -> bool) -> Option<(Ticket, Taken)> {
        let ticket = self.lines().take(&can)?;
        let taken = Taken {
            lines: self.clone(),
            line: line_of(&ticket),
        };
        Some((ticket, taken))
    }

    fn lines(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here is ever half-changed.
        let lines = self.shared.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, ticket: Ticket) {
        if !self.tasks.insert(ticket.task) {
            return;
        }
        let line = self.waiting.entry(ticket.tenant.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(ticket.tenant.clone());
        }
        line.push_back(ticket);
    }

    fn take(&mut self, can: &impl Fn(Option<&str>) -> bool) -> Option<Ticket> {
        let can = |ticket: &Ticket| can(ticket.target.as_deref());
        for turn in 0..self.turns.len() {
            let Some(line) = self.waiting.get_mut(&self.turns[turn]) else {
                continue;
            };
            let Some(ticket) = line
                .iter()
                .position(can)
                .and_then(|place| line.remove(place))
            else {
                continue;
            };
            self.tasks.remove(&ticket.task);
            let goes_on = !line.is_empty();
            if let Some(tenant) = self.turns.remove(turn) {
                match goes_on {
                    true => self.turns.push_back(tenant),
                    false => drop(self.waiting.remove(&tenant)),
                }
            }
            *self.taken.entry(line_of(&ticket)).or_default() += 1;
            return Some(ticket);
        }
        None
    }
}

fn line_of(ticket: &Ticket) -> (Option<String>, String) {
    (ticket.target.clone(), ticket.tenant.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::traces::Origin;

    fn ticket(tenant: &str, name: &str, target: Option<&str>) -> Ticket {
        Ticket {
            task: Digest::of(name.as_bytes()),
            tenant: tenant.into(),
            target: target.map(str::to_owned),
            origin: Origin::default(),
        }
    }

    fn names(queue: &Lines, holds: impl Fn(&str) -> bool) -> Vec<Ticket> {
        let take = || queue.try_take(|target| target.is_none_or(&holds));
        std::iter::from_fn(take).map(|(ticket, _)| ticket).collect()
    }

    #[test]
    fn tenants_take_turns() {
        let queue = Lines::default();
        let all: Vec<_> = ["a1", "a2", "a3", "b1", "b2", "c1"]
            .iter()
            .map(|name| ticket(&name[..1], name, None))
            .collect();
        all.iter().cloned().for_each(|ticket| queue.push(ticket));
        let order = [0, 3, 5, 1, 4, 2].map(|index: usize| all[index].clone());
        assert_eq!(names(&queue, |_| true), order);
        assert!(queue.lines().turns.is_empty() && queue.lines().waiting.is_empty());
        queue.push(all[0].clone());
        queue.push(all[0].clone());
        assert_eq!(names(&queue, |_| true), [all[0].clone()]);
    }

    #[test]
    fn workers_get_what_they_hold() {
        let queue = Lines::default();
        let x = ticket("a", "1", Some("x"));
        let y = ticket("a", "2", Some("y"));
        let any = ticket("a", "3", None);
        for ticket in [&x, &y, &any] {
            queue.push(ticket.clone());
        }
        assert_eq!(queue.depth().by_target()["y"], 1);
        assert_eq!(names(&queue, |target| target == "y"), [y, any]);
        assert_eq!(names(&queue, |_| false), []);
        assert_eq!(names(&queue, |_| true), [x]);
    }

    #[test]
    fn what_was_taken_counts_until_it_has_ended() {
        let queue = Lines::default();
        let first = ticket("a", "1", Some("x"));
        for ticket in [
            &first,
            &ticket("b", "2", Some("x")),
            &ticket("a", "3", None),
        ] {
            queue.push(ticket.clone());
        }
        let (found, taken) = queue.withdraw("x").unwrap();
        assert_eq!(found, first);
        let depth = queue.depth();
        assert_eq!(
            depth.by_target(),
            [("x".into(), 2), (String::new(), 1)].into()
        );
        assert_eq!(depth.of_tenant("a").by_target()["x"], 1);
        drop(taken);
        assert_eq!(queue.depth().by_target()["x"], 1);
        assert!(queue.withdraw("y").is_none());
        assert!(queue.withdraw("x").is_some());
        assert!(
            queue.withdraw("x").is_none(),
            "what needs no target is for anybody"
        );
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queue = Lines::default();
        let waiting = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.take(|target| target == "x").await })
        };
        tokio::task::yield_now().await;
        queue.push(ticket("a", "1", Some("y")));
        tokio::task::yield_now().await;
        queue.push(ticket("a", "2", Some("x")));
        assert_eq!(waiting.await.unwrap().0, ticket("a", "2", Some("x")));
    }
}
