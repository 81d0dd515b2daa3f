//! A network namespace for one worker, with a cable that can be cut.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{self, Command};

use crate::run::{RunError, run_command};

/// Both ends of the cable. The addresses are for documentation, so nobody has them.
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 76);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// What the end in the namespace is called.
const CABLE: &str = "cable";

/// The namespace. It ends with this.
pub struct Network {
    name: String,
    here: String,
}

impl Network {
    /// Makes it.
    pub fn new() -> Result<Self, RunError> {
        let id = process::id();
        let network = Self {
            name: format!("preverify-{id}"),
            here: format!("pv{id}"),
        };
        let Self { name, here } = &network;
        ip(&["netns", "add", name])?;
        ip(&[
            "link", "add", here, "type", "veth", "peer", CABLE, "netns", name,
        ])?;
        ip(&["addr", "add", &format!("{HERE}/31"), "dev", here])?;
        ip(&["link", "set", here, "up"])?;
        network.inside(&["addr", "add", &format!("{THERE}/31"), "dev", CABLE])?;
        network.inside(&["link", "set", "lo", "up"])?;
        network.cable("up")?;
        Ok(network)
    }

    /// The address that is reached from both sides.
    pub fn address(&self) -> IpAddr {
        HERE.into()
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Cuts the cable (`down`), or mends it (`up`).
    pub fn cable(&self, state: &str) -> Result<(), RunError> {
        self.inside(&["link", "set", CABLE, state])
    }

    fn inside(&self, args: &[&str]) -> Result<(), RunError> {
        ip(&[&["-n", &self.name][..], args].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with one of its ends.
        let _ = ip(&["link", "del", &self.here]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<(), RunError> {
    run_command(Command::new("ip").args(args))
}
