//! Doorward, the front door of an Odoo fleet: a Traefik-v3-compatible reverse proxy.

pub mod api;
pub mod app;
pub mod compile;
pub mod config;
pub mod demo;
pub mod entry_point;
pub mod exchange;
pub mod middleware;
pub mod observability;
pub mod provider;
pub mod reload;
pub mod router;
pub mod rule;
pub mod service;
pub mod state;
pub mod tls;
pub mod upstream;
pub mod values;
pub mod wire;
