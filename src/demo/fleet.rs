//! The pods of the demo by their names, and the ports they and the proxy need. A port that is
//! taken is said by its number, with the flag that chooses another one.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::anyhow;

use super::odoo::{Backend, Behaviour, PortError};
use super::options::{DemoOptions, PODS};
use crate::config::diagnostics::did_you_mean;

/// All pods.
pub(super) struct Fleet {
    pods: Vec<Backend>,
}

impl Fleet {
    /// Starts every pod.
    pub(super) async fn start(options: &DemoOptions) -> anyhow::Result<Self> {
        let behaviour = Behaviour { keep_alive: options.keep_alive, delay: options.delay };
        let mut pods = Vec::with_capacity(PODS.len());
        for pod in options.pods() {
            let started = Backend::start(pod.name, pod.http, pod.bus, behaviour).await;
            pods.push(started.map_err(|error| {
                let PortError { port, source } = error;
                unusable(port, "--backend-port-base", &source)
            })?);
        }
        Ok(Self { pods })
    }

    /// The pods in order.
    pub(super) fn pods(&self) -> &[Backend] {
        &self.pods
    }

    /// Stops a pod, or says which one may have been meant.
    pub(super) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        self.find(name)?.stop().await;
        Ok(())
    }

    /// Starts a pod again.
    pub(super) async fn resume(&mut self, name: &str) -> anyhow::Result<()> {
        Ok(self.find(name)?.resume().await?)
    }

    /// Stops them all.
    pub(super) async fn stop_all(&mut self) {
        for pod in &mut self.pods {
            pod.stop().await;
        }
    }

    fn find(&mut self, name: &str) -> anyhow::Result<&mut Backend> {
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.name() == name) {
            return Ok(pod);
        }
        Err(match did_you_mean(name, PODS) {
            Some(meant) => anyhow!("no pod `{name}`: did you mean `{meant}`?"),
            None => anyhow!("no pod `{name}`: there are {}", PODS.join(", ")),
        })
    }
}

/// Makes sure that the proxy will get its ports, since its own message cannot name the demo's flags.
pub(super) fn check_front_ports(options: &DemoOptions) -> anyhow::Result<()> {
    for (port, flag) in [
        (options.http_port, "--http-port"),
        (options.https_port, "--https-port"),
        (options.admin_port, "--admin-port"),
    ] {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| unusable(port, flag, &error))?;
    }
    Ok(())
}

fn unusable(port: u16, flag: &str, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "port {port} is taken: stop the program that listens there (`ss -ltnp sport = :{port}` \
             names it), or choose another port with `{flag}`"
        ),
        ErrorKind::PermissionDenied => anyhow!(
            "port {port} is for the system's programs only: choose one above 1023 with `{flag}`"
        ),
        _ => anyhow!("port {port} cannot be used: {error}; choose another one with `{flag}`"),
    }
}
