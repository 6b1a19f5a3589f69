//! Doorward as its users meet it: a whole proxy in this process, real sockets, real backends.
//!
//! Each module is one subject, each test a short story. `harness` has the four words that all of
//! them are told in: `Origin::start()`, `Proxy::start(text)`, `proxy.get("/")`, `proxy.reload(text)`.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod admin_bounds;
#[cfg(test)]
mod attack_auth;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod attack_cost;
#[cfg(test)]
mod attack_http2;
#[cfg(test)]
mod attack_routes;
#[cfg(test)]
mod attack_tls;
#[cfg(test)]
mod backends;
#[cfg(test)]
mod ban;
#[cfg(test)]
mod broken_router;
#[cfg(test)]
mod check;
#[cfg(test)]
mod class_addresses;
#[cfg(test)]
mod class_answers;
#[cfg(test)]
mod class_api;
#[cfg(test)]
mod class_auth;
#[cfg(test)]
mod class_load;
#[cfg(test)]
mod class_paths;
#[cfg(test)]
mod class_tls;
#[cfg(test)]
mod contract_entry_points;
#[cfg(test)]
mod contract_middlewares;
#[cfg(test)]
mod contract_observability;
#[cfg(test)]
mod contract_ops;
#[cfg(test)]
mod contract_routers;
#[cfg(test)]
mod contract_services;
#[cfg(test)]
mod contract_wire;
#[cfg(test)]
mod entry_points;
#[cfg(test)]
mod explain;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod fault_config;
#[cfg(test)]
#[cfg(all(feature = "redis", target_os = "linux"))]
mod fault_redis;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod fault_system;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod fault_upstream;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod floods_http2;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod floods_memory;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod floods_slow;
#[cfg(test)]
mod h2spec;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod marks;
#[cfg(test)]
mod middlewares;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod options;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod overload;
#[cfg(test)]
mod own_limits;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod request_ids;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod service_kinds;
#[cfg(test)]
mod services;
#[cfg(test)]
mod shelf_auth;
#[cfg(test)]
mod shelf_content;
#[cfg(all(test, feature = "redis"))]
mod shelf_limits;
#[cfg(test)]
mod shelf_paths;
#[cfg(test)]
mod shelf_retries;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod system;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod wire;
