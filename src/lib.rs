//! Doorward, the front door of an Odoo fleet: a Traefik-v3-compatible reverse proxy.
//!
//! ```text
//!          CONTROL PLANE                                     DATA PLANE
//!                                                  (never reads configuration, never waits for it)
//!
//! providers ─▶ merge ─▶ compile ─▶ RoutingTable ══ one swap ══▶ entry point ▶ connection ▶ request
//! file …       name@    pure; a    immutable                      │
//!              provider table and  + plans                        ▼
//!                       a list of  (health checks)         router ▶ middlewares ▶ service ▶ upstream
//!                       diagnostics     │
//!                                       ▼
//!                       managers: health        SharedState: what outlives a reload
//! ```
//!
//! Four sentences carry the design:
//!
//! 1. **Providers produce, compile decides, the data plane only follows.**
//! 2. **Compile never fails**: it returns a table of everything that works and a diagnostic for
//!    everything that does not.
//! 3. **Facts go down by reference, facts come up in the response**: a request's context never
//!    changes on its way.
//! 4. **What must outlive a reload is asked for by name** ([`state::SharedState`]); everything
//!    else dies with its table.
//!
//! # A request walks through
//!
//! 1. [`entry_point::worker`]: each worker is one thread with a runtime of its own. It accepts,
//!    and what it accepts never leaves it.
//! 2. [`entry_point::connection`] reads PROXY protocol, the first bytes, and terminates TLS with
//!    the options that the running table has for the client's server name ([`tls::TlsRoutes`]).
//! 3. [`wire::RequestGate`] stands between the client's bytes and hyper: it lets only heads and
//!    bodies pass that can be read in one way.
//! 4. `entry_point::exchange` makes the request canonical (host, path, client, scheme), takes the
//!    current [`router::RoutingTable`] and finds the [`router::HttpRouter`] by host index.
//! 5. The router's [`exchange::Chain`] runs its middlewares and ends in a service.
//! 6. [`service`] picks a healthy server; [`upstream`] sends the request there over a pooled
//!    connection of this worker; [`wire::ResponseDecoder`] reads the answer.
//! 7. The response comes back through the middlewares that wanted it. When its body (or tunnel)
//!    ends, the exchange is counted and logged.
//!
//! # Who may know whom
//!
//! A module imports only from lower ranks; `tests/tidy.rs` holds the same table and fails with a
//! sentence.
//!
//! | Rank | Modules |
//! |---|---|
//! | below | `sync`, what threads meet by |
//! | 0 | `exchange`, `state`, `values`, `wire` (which also tells `exchange` what a host is) |
//! | 1 | `rule`, `tls`, `observability` |
//! | 2 | `upstream` |
//! | 3 | `middleware`, `service` (neither sees the other) |
//! | 4 | `router` |
//! | 5 | `config` (all but the static configuration and its loader) |
//! | 6 | `compile`, `provider`, `entry_point`, `admin` (none sees another); `api` reads what `compile` reports |
//! | 7 | `reload`, `config::static_config` and what belongs to it |
//! | 8 | `app`, `demo`, then `main` |
//!
//! # Invariants, and who guards them
//!
//! | Invariant | Guarded by |
//! |---|---|
//! | The data plane imports no configuration root | ranks (`tests/tidy.rs`) |
//! | `compile` returns for every input | fuzz target `configuration`, unit tests |
//! | A reload is one store | `tests/it/reload.rs` |
//! | A router that cannot be built never lets its requests reach another router | `tests/it/broken_router.rs` |
//! | Allocations of a request do not depend on the number of routers | `tests/allocations.rs` |
//! | The host index finds what a linear scan finds | property test in `router/index.rs` |
//! | No lock is held across `await` | clippy |
//! | Nothing reachable from the wire or from configuration panics | clippy, fuzzing, and a catch at the request boundary |
//! | No `unsafe` | the manifest |
//! | What Traefik's users may rely on is held by a test, or a table says why not | `tests/compat.rs` |
//! | Every queue has a bound, every wait a time limit | clippy bans unbounded channels |
//! | Secrets are never printed | [`values::Secret`], `tests/it/marks.rs` |

pub mod admin;
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
mod sync;
pub mod tls;
pub mod upstream;
pub mod values;
pub mod wire;
