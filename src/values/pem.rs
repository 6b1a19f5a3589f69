//! What is wrong with a PEM, in words of our own: the parser's quote the text, and the text may be
//! a private key.

use rustls_pki_types::pem::Error;

/// Says why a PEM cannot be read, without a byte of it. An error of a PEM is told in no other way.
pub fn pem_error(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "no `-----END` line: are its line breaks lost?",
        Error::IllegalSectionStart { .. } => {
            "a `-----BEGIN` line is broken: are its line breaks lost?"
        }
        Error::Base64Decode(_) => "what is between `-----BEGIN` and `-----END` is not base64",
        Error::NoItemsFound => "there is none inside",
        Error::SectionTooLarge => "it is too large",
        Error::Io(_) => "it cannot be read",
        _ => "it is no PEM",
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn nothing_of_the_text_is_told() {
        for (pem, want) in [
            ("-----BEGIN PRIVATE KEY----- U0VDUkVU -----END PRIVATE KEY-----", "line breaks"),
            ("-----BEGIN PRIVATE KEY-----\nU0VDUkVU", "`-----END`"),
            ("-----BEGIN PRIVATE KEY U0VDUkVU\n-----END PRIVATE KEY-----\n", "BEGIN"),
            ("-----BEGIN PRIVATE KEY-----\nU0VDUkVU!\n-----END PRIVATE KEY-----\n", "base64"),
            ("", "none inside"),
        ] {
            let error = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap_err();
            let told = pem_error(&error);
            assert!(told.contains(want), "{pem}: {told}");
            assert!(!told.contains("U0VD") && !told.contains("85, 48"), "{pem}: {told}");
        }
    }
}
