//! What waits in a stream of NATS JetStream: each ticket is one worker's at a time, until that one has done it or is silent.
//!
//! ```text
//! preverify.work.TARGET.TENANT.TASK    a ticket; there is one at most for a task
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{Depth, Ticket};
use crate::nats::{Nats, NatsError, SILENCE, subject};

/// The place of a target in the subjects of tickets that need none.
const ANY: &str = "any";
/// How often a worker without work looks whether it has missed something, or somebody was lost.
const LOOK: Duration = Duration::from_secs(1);
/// How long a server may take to say whether there is something.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a line without anybody in it is known to the server.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The stream of tickets.
#[derive(Debug)]
pub struct Work {
    nats: Nats,
    stream: Stream,
    lines: Mutex<Lines>,
}

/// The lines that this process takes from, the next to be served first.
#[derive(Debug, Default)]
struct Lines {
    turns: VecDeque<Line>,
    consumers: HashMap<Line, PullConsumer>,
}

/// The tickets of a tenant for a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Line {
    target: String,
    tenant: String,
}

/// A ticket that was delivered. While it is there, the server hears that somebody works on it.
#[derive(Debug)]
pub struct Delivery {
    message: Arc<Message>,
    alive: JoinHandle<()>,
}

impl Work {
    /// The one of the service.
    pub async fn open(nats: Nats) -> Result<Self, NatsError> {
        let stream = nats.work().await?;
        Ok(Self {
            nats,
            stream,
            lines: Mutex::default(),
        })
    }

    /// Adds a ticket, unless there is one for the task already.
    pub async fn push(&self, ticket: &Ticket) -> Result<(), NatsError> {
        let failed = || format!("queue the task {}", ticket.task);
        let target = ticket.target.as_deref().unwrap_or(ANY);
        let subject = subject(&format!("work.{target}.{}.{}", ticket.tenant, ticket.task));
        let text = serde_json::to_vec(ticket).expect("all its keys are strings");
        let sent = self.nats.context.publish(subject, text.into()).await;
        let kept = sent.map_err(NatsError::of(failed()))?.await;
        match kept {
            Ok(_) => Ok(()),
            // The subject has its one message.
            Err(error) if error.kind() == PublishErrorKind::Other && is_full(&error) => Ok(()),
            Err(error) => Err(NatsError::of(failed())(error)),
        }
    }

    /// Waits for a ticket.
    pub async fn take(&self, targets: &[String]) -> (Ticket, Delivery) {
        let mut pushed = None;
        loop {
            match self.try_take(targets, &mut pushed).await {
                Ok(Some(taken)) => return taken,
                Ok(None) => {}
                Err(error) => {
                    error!(%error, "no work can be taken");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    async fn try_take(
        &self,
        targets: &[String],
        pushed: &mut Option<Subscriber>,
    ) -> Result<Option<(Ticket, Delivery)>, NatsError> {
        let pushed = match pushed {
            Some(pushed) => pushed,
            None => {
                let subscribed = self.nats.client.subscribe(subject("work.>")).await;
                pushed.insert(subscribed.map_err(NatsError::of("hear of work"))?)
            }
        };
        if let Some(taken) = self.next(targets).await? {
            return Ok(Some(taken));
        }
        // Each message on these subjects is a ticket; one that somebody has lost comes without a message.
        let _ = tokio::time::timeout(LOOK, pushed.next()).await;
        Ok(None)
    }

    /// The next ticket, if there is one.
    async fn next(&self, targets: &[String]) -> Result<Option<(Ticket, Delivery)>, NatsError> {
        let mut lines = self.lines.lock().await;
        let there = self.lines(targets).await?;
        lines.turns.retain(|line| there.contains(line));
        for line in there {
            if !lines.turns.contains(&line) {
                lines.turns.push_back(line);
            }
        }
        for _ in 0..lines.turns.len() {
            let Some(line) = lines.turns.pop_front() else {
                break;
            };
            let taken = self.ticket_from(&line, &mut lines.consumers).await;
            lines.turns.push_back(line);
            if let Some(taken) = taken? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// The next ticket of a line, if there is one.
    async fn ticket_from(
        &self,
        line: &Line,
        consumers: &mut HashMap<Line, PullConsumer>,
    ) -> Result<Option<(Ticket, Delivery)>, NatsError> {
        let Some(message) = self.take_from(line, consumers).await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&message.payload) {
            Ok(ticket) => Ok(Some((ticket, Delivery::of(message)))),
            Err(error) => {
                warn!(%error, subject = %message.subject, "what is no ticket is thrown away");
                let thrown = message.ack_with(AckKind::Term).await;
                thrown.map_err(NatsError::of_any("throw a message away"))?;
                Ok(None)
            }
        }
    }

    async fn take_from(
        &self,
        line: &Line,
        consumers: &mut HashMap<Line, PullConsumer>,
    ) -> Result<Option<Message>, NatsError> {
        if !consumers.contains_key(line) {
            let config = pull::Config {
                durable_name: Some(format!("{}-{}", line.target, line.tenant)),
                filter_subject: subject(&format!("work.{}.{}.*", line.target, line.tenant)),
                ack_policy: AckPolicy::Explicit,
                ack_wait: SILENCE,
                inactive_threshold: FORGOTTEN,
                ..pull::Config::default()
            };
            let made = self.stream.create_consumer(config).await;
            let made = made.map_err(NatsError::of("make a consumer"))?;
            consumers.insert(line.clone(), made);
        }
        let taken = tokio::time::timeout(PATIENCE, fetch(&consumers[line])).await;
        let taken = taken
            .map_err(NatsError::of("take work in time"))
            .and_then(|taken| taken);
        if taken.is_err() {
            // The server may have forgotten it.
            consumers.remove(line);
        }
        taken
    }

    /// The lines with somebody in them, among those for some targets.
    async fn lines(&self, targets: &[String]) -> Result<BTreeSet<Line>, NatsError> {
        let lines = self.subjects().await?.into_iter().map(|(line, _)| line);
        let held = |line: &Line| line.target == ANY || targets.contains(&line.target);
        Ok(lines.filter(held).collect())
    }

    /// How many wait or are worked on.
    pub async fn depth(&self) -> Result<Depth, NatsError> {
        let lines = self.subjects().await?.into_iter();
        let of = |line: Line| ((line.target != ANY).then_some(line.target), line.tenant);
        Ok(lines.map(|(line, count)| (of(line), count)).collect())
    }

    /// Takes the next ticket for exactly this target, if one waits.
    pub async fn withdraw(&self, target: &str) -> Result<Option<(Ticket, Delivery)>, NatsError> {
        let mut lines = self.lines.lock().await;
        for (line, _) in self.subjects().await? {
            if line.target == target
                && let Some(taken) = self.ticket_from(&line, &mut lines.consumers).await?
            {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    async fn subjects(&self) -> Result<Vec<(Line, usize)>, NatsError> {
        let failed = || NatsError::of("look at the queue");
        let found = self.stream.info_with_subjects(subject("work.>")).await;
        let mut found = found.map_err(failed())?;
        let mut all = Vec::new();
        while let Some(subject) = found.next().await {
            let (subject, count) = subject.map_err(failed())?;
            let mut words = subject.split('.').skip(2).map(str::to_owned);
            if let (Some(target), Some(tenant)) = (words.next(), words.next()) {
                all.push((Line { target, tenant }, count));
            }
        }
        Ok(all)
    }
}

/// A message, if there is one now. A server that does not lead yet, or any longer, does not answer at all.
async fn fetch(consumer: &PullConsumer) -> Result<Option<Message>, NatsError> {
    let fetched = consumer.fetch().max_messages(1).messages().await;
    let mut fetched = fetched.map_err(NatsError::of("take work"))?;
    let message = fetched.next().await.transpose();
    message.map_err(NatsError::of_any("take work"))
}

fn is_full(error: &async_nats::jetstream::context::PublishError) -> bool {
    use std::error::Error;
    error
        .source()
        .is_some_and(|source| source.to_string().contains("maximum messages per subject"))
}

impl Delivery {
    fn of(message: Message) -> Self {
        let message = Arc::new(message);
        let alive = tokio::spawn({
            let message = message.clone();
            async move {
                loop {
                    tokio::time::sleep(SILENCE / 3).await;
                    if let Err(error) = message.ack_with(AckKind::Progress).await {
                        warn!(%error, "the server does not hear that work goes on");
                    }
                }
            }
        });
        Self { message, alive }
    }

    /// How many workers had it before.
    pub fn lost(&self) -> u32 {
        let delivered = self.message.info().map_or(1, |info| info.delivered);
        u32::try_from(delivered - 1).unwrap_or(0)
    }

    /// It is done.
    pub async fn done(self) -> Result<(), NatsError> {
        let acknowledged = self.message.double_ack().await;
        acknowledged.map_err(NatsError::of_any("end a ticket"))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.alive.abort();
    }
}
