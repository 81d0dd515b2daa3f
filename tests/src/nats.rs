//! NATS servers of a test's own.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::service::{Process, ServiceError};

/// Servers that know each other; one alone is no cluster.
#[derive(Debug)]
pub struct NatsServers {
    program: PathBuf,
    address: IpAddr,
    folder: PathBuf,
    ports: Vec<Ports>,
    running: Vec<Option<Process>>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    clients: u16,
    servers: u16,
}

impl NatsServers {
    /// Starts so many at an address. What they keep goes to a folder.
    pub fn start(
        program: &Path,
        count: usize,
        address: IpAddr,
        folder: &Path,
    ) -> Result<Self, ServiceError> {
        let mut ports = Vec::new();
        for _ in 0..count {
            // Both are held until both are known.
            let free = [
                TcpListener::bind((address, 0))?,
                TcpListener::bind((address, 0))?,
            ];
            ports.push(Ports {
                clients: free[0].local_addr()?.port(),
                servers: free[1].local_addr()?.port(),
            });
        }
        let mut servers = Self {
            program: program.to_owned(),
            address,
            folder: folder.to_owned(),
            ports,
            running: Vec::new(),
        };
        servers.running.resize_with(count, || None);
        for server in 0..count {
            servers.restart(server)?;
        }
        servers.wait()?;
        Ok(servers)
    }

    /// Where clients find them.
    pub fn urls(&self) -> Vec<String> {
        let ports = self.ports.iter();
        ports
            .map(|ports| format!("nats://{}:{}", self.address, ports.clients))
            .collect()
    }

    /// Starts one that is not running, with what it has kept.
    pub fn restart(&mut self, server: usize) -> Result<(), ServiceError> {
        let Ports { clients, servers } = self.ports[server];
        let store = self.folder.join(format!("nats-{server}"));
        let mut command = Command::new(&self.program);
        command
            .args(["--addr", &self.address.to_string()])
            .args(["--port", &clients.to_string()])
            .arg("--jetstream")
            .arg("--store_dir")
            .arg(&store);
        if self.ports.len() > 1 {
            let at = |port: u16| format!("nats://{}:{port}", self.address);
            let others: Vec<_> = self.ports.iter().map(|ports| at(ports.servers)).collect();
            command
                .args(["--server_name", &format!("n{server}")])
                .args(["--cluster_name", "preverify"])
                .args(["--cluster", &at(servers)])
                .args(["--routes", &others.join(",")]);
        }
        let log = store.with_extension("log");
        self.running[server] = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Waits until all that were started listen.
    pub fn wait(&mut self) -> Result<(), ServiceError> {
        for (process, ports) in self.running.iter_mut().zip(&self.ports) {
            if let Some(process) = process {
                process.until(|| TcpStream::connect((self.address, ports.clients)).ok())?;
            }
        }
        Ok(())
    }

    /// Ends one as `kill -9` does.
    pub fn kill(&mut self, server: usize) -> Result<(), ServiceError> {
        if let Some(mut process) = self.running[server].take() {
            process.kill()?;
        }
        Ok(())
    }
}
