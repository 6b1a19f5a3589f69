//! The shelf of middlewares: one file each, named as in Traefik's reference, and their list.
//!
//! A file has four parts in this order: options (their comments are the reference), `build`, the
//! run-time type, tests. A middleware that cannot be built is an error of that middleware alone.

mod add_prefix;
mod at_hand;
mod auth;
pub mod ban;
mod basic_auth;
mod buffering;
mod circuit_breaker;
mod compress;
mod content_type;
mod cors;
mod digest_auth;
mod digest_header;
mod encoded_characters;
mod errors;
mod expression;
mod forward_auth;
mod grpc_web;
mod headers;
mod in_flight_req;
mod ip_allow_list;
mod ip_strategy;
mod ip_white_list;
mod nonces;
mod pass_tls_client_cert;
mod password;
mod path;
mod plugin;
mod rate_limit;
mod redirect;
pub mod redirect_regex;
pub mod redirect_scheme;
mod reference;
mod replace_path;
mod replace_path_regex;
mod retry;
mod security_headers;
mod sniff;
mod source;
pub mod strip_prefix;
mod strip_prefix_regex;
#[cfg(test)]
pub(crate) mod testing;
mod token_buckets;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::exchange::canonical::EncodedCharactersConfig;
use crate::exchange::{Handler, Middleware};
use crate::state::SharedState;
use crate::upstream::Proxies;
use crate::values::{BuildError, Files, Profile, QualifiedName};

/// Builds, or finds, a service by its name.
pub type BuildService<'a> = dyn FnMut(&str) -> Result<Arc<dyn Handler>, BuildError> + 'a;

/// What a middleware may look at while it is built. No socket, no clock.
pub struct BuildContext<'a> {
    /// The middleware's own name.
    pub name: &'a QualifiedName,
    /// The router (or service) that this instance is for: state is per router and middleware.
    pub owner: &'a QualifiedName,
    /// Reads users files and the like.
    pub files: &'a dyn Files,
    /// What outlives a reload.
    pub state: &'a SharedState,
    /// How far to differ from Traefik.
    pub profile: Profile,
    /// The proxies that other servers are reached through.
    pub proxies: &'a Proxies,
    /// Builds, or finds, a service that the middleware sends requests to.
    pub service: &'a mut BuildService<'a>,
    /// Sentences for the user that do not keep the middleware from working.
    pub warnings: &'a mut Vec<BuildError>,
}

impl BuildContext<'_> {
    /// State of this middleware for this router that outlives a reload as long as `settings`
    /// stays the same.
    pub fn carry_over<T, F>(&self, settings: &str, make: F) -> Arc<T>
    where
        T: std::any::Any + Send + Sync,
        F: FnOnce() -> T,
    {
        // Names may hold any character: with their lengths, no two of them read as another two.
        let (owner, name) = (self.owner.as_str(), self.name.as_str());
        let key = format!("{}|{}|{owner}|{name}|{settings}", owner.len(), name.len());
        self.state.carry_over(&key, make)
    }

    /// The same, but one for all routers that name this middleware.
    pub fn carry_over_for_all<T, F>(&self, settings: &str, make: F) -> Arc<T>
    where
        T: std::any::Any + Send + Sync,
        F: FnOnce() -> T,
    {
        // No router has an empty name.
        self.state.carry_over(&format!("|{}|{settings}", self.name), make)
    }
}

/// Options of one middleware, and how it is made of them.
pub trait Build: Send + Sync {
    /// Makes the middleware.
    fn build(&self, cx: &mut BuildContext<'_>) -> Result<Arc<dyn Middleware>, BuildError>;
}

/// Makes `MiddlewareConfig`: one optional field per middleware, as Traefik's schema has it.
macro_rules! middlewares {
    ($($field:ident: $config:ty = $name:literal,)*) => {
        /// One entry of `http.middlewares`: exactly one field is set.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct MiddlewareConfig {
            $(
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$config>,
            )*
            /// `chain`
            #[serde(skip_serializing_if = "Option::is_none")]
            pub chain: Option<ChainConfig>,
        }

        impl MiddlewareConfig {
            /// The set fields: name as configured, and how to build it (`None` for `chain`, which
            /// compiling flattens).
            pub fn set(&self) -> Vec<(&'static str, Option<&dyn Build>)> {
                let mut set: Vec<(&'static str, Option<&dyn Build>)> = Vec::new();
                $(if let Some(config) = &self.$field {
                    set.push(($name, Some(config)));
                })*
                if self.chain.is_some() {
                    set.push(("chain", None));
                }
                set
            }
        }
    };
}

middlewares! {
    add_prefix: add_prefix::AddPrefixConfig = "addPrefix",
    ban: ban::BanConfig = "ban",
    basic_auth: basic_auth::BasicAuthConfig = "basicAuth",
    buffering: buffering::BufferingConfig = "buffering",
    circuit_breaker: circuit_breaker::CircuitBreakerConfig = "circuitBreaker",
    compress: compress::CompressConfig = "compress",
    content_type: content_type::ContentTypeConfig = "contentType",
    digest_auth: digest_auth::DigestAuthConfig = "digestAuth",
    encoded_characters: EncodedCharactersConfig = "encodedCharacters",
    errors: errors::ErrorsConfig = "errors",
    forward_auth: forward_auth::ForwardAuthConfig = "forwardAuth",
    grpc_web: grpc_web::GrpcWebConfig = "grpcWeb",
    headers: headers::HeadersConfig = "headers",
    in_flight_req: in_flight_req::InFlightReqConfig = "inFlightReq",
    ip_allow_list: ip_allow_list::IpAllowListConfig = "ipAllowList",
    ip_white_list: ip_white_list::IpWhiteListConfig = "ipWhiteList",
    pass_tls_client_cert: pass_tls_client_cert::PassTlsClientCertConfig = "passTLSClientCert",
    plugin: plugin::PluginConfig = "plugin",
    rate_limit: rate_limit::RateLimitConfig = "rateLimit",
    redirect_regex: redirect_regex::RedirectRegexConfig = "redirectRegex",
    redirect_scheme: redirect_scheme::RedirectSchemeConfig = "redirectScheme",
    replace_path: replace_path::ReplacePathConfig = "replacePath",
    replace_path_regex: replace_path_regex::ReplacePathRegexConfig = "replacePathRegex",
    retry: retry::RetryConfig = "retry",
    strip_prefix: strip_prefix::StripPrefixConfig = "stripPrefix",
    strip_prefix_regex: strip_prefix_regex::StripPrefixRegexConfig = "stripPrefixRegex",
}

/// `chain`: other middlewares, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ChainConfig {
    /// Names of the middlewares.
    pub middlewares: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_what_is_set() {
        for (text, name, served) in [
            (r#"{"addPrefix": {"prefix": "/a"}}"#, "addPrefix", true),
            (r#"{"inFlightReq": {"amount": 1}}"#, "inFlightReq", true),
            (r#"{"ipAllowList": {"sourceRange": ["::1"]}}"#, "ipAllowList", true),
            (r#"{"chain": {"middlewares": ["a"]}}"#, "chain", false),
            (r#"{"circuitBreaker": {}}"#, "circuitBreaker", true),
        ] {
            let config: MiddlewareConfig = serde_json::from_str(text).unwrap();
            let set = config.set();
            assert_eq!(set.len(), 1, "{text}");
            assert_eq!((set[0].0, set[0].1.is_some()), (name, served));
        }
        assert!(MiddlewareConfig::default().set().is_empty());
    }
}
