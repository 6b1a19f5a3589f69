//! Certificates and their stores, compared as text: which of them a client is shown is not asked.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::groups::Names;
use super::objects::ObjectTold;
use super::values::{Difference, Values, options};
use crate::app::explain::Subject;
use crate::config::dynamic_config::Object;
use crate::tls::CertificateConfig;
use crate::values::{Disk, FileOrContent, hex};

/// Certificates and stores that are new, gone, or say something else.
pub(super) fn changed(values: &Values<'_>) -> Vec<ObjectTold> {
    let mut found = certificates(values);
    let [then, now] = [values.old, values.new].map(|subject| &subject.table.merged.tls_stores);
    for name in then.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let differences = match (then.get(name), now.get(name)) {
            (Some(old), Some(new)) if old.config == new.config => continue,
            (Some(old), Some(new)) => options(&old.config, &new.config, [&old.node, &new.node]),
            (old, _) => vec![one_side("defaultCertificate", "a store", old.is_some())],
        };
        found.push(told("tls.stores", name.to_string(), differences));
    }
    found
}

fn certificates(values: &Values<'_>) -> Vec<ObjectTold> {
    let by_name = |subject: &Subject| -> BTreeMap<String, Vec<_>> {
        let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for object in &subject.table.merged.certificates {
            found.entry(label(&object.config.cert_file)).or_default().push(object.clone());
        }
        found
    };
    let (then, now) = (by_name(values.old), by_name(values.new));
    let mut found = Vec::new();
    for name in then.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        let differences =
            match (then.get(name).map(Vec::as_slice), now.get(name).map(Vec::as_slice)) {
                (Some([old]), Some([new])) => difference(old, new),
                (Some(old), Some(new)) => {
                    let same = old.len() == new.len()
                        && old.iter().zip(new).all(|(one, other)| one.config == other.config);
                    let changed = || vec![Difference::unshown("keyFile".to_owned())];
                    if same { Vec::new() } else { changed() }
                }
                (old, _) => vec![one_side("certFile", name, old.is_some())],
            };
        if !differences.is_empty() {
            found.push(told("tls.certificates", name.clone(), differences));
        }
    }
    found
}

fn difference(old: &Object<CertificateConfig>, new: &Object<CertificateConfig>) -> Vec<Difference> {
    if old.config == new.config {
        return Vec::new();
    }
    options(&old.config, &new.config, [&old.node, &new.node])
}

/// What is on one side only.
fn one_side(option: &str, value: &str, is_old: bool) -> Difference {
    let (value, nothing) = (Some(value.to_owned()), None);
    let (old, new) = if is_old { (value, nothing) } else { (nothing, value) };
    Difference { option: option.to_owned(), old, new }
}

fn told(kind: &'static str, name: String, differences: Vec<Difference>) -> ObjectTold {
    ObjectTold { kind, name, differences, routers: Names { count: 0, first: Vec::new() } }
}

/// The path of a certificate, or a digest of its text.
fn label(certificate: &FileOrContent) -> String {
    if !certificate.is_content() {
        return certificate.path().display().to_string();
    }
    let bytes = certificate.read(&Disk).unwrap_or_else(|_| [].into());
    let digest = hex(&Sha256::digest(&bytes));
    format!("PEM with SHA-256 {}...", digest.get(..16).unwrap_or_default())
}
