//! The functions of Traefik's templates, which are sprig 3.2.3's, that are not served: who uses one learns that it is no
//! slip of the pen, and what to do.

/// Names, and what stands against each group.
const UNSERVED: [(&[&str], &str); 6] = [
    (
        &[
            "ago",
            "date",
            "dateInZone",
            "dateModify",
            "date_in_zone",
            "date_modify",
            "duration",
            "durationRound",
            "htmlDate",
            "htmlDateInZone",
            "mustDateModify",
            "mustToDate",
            "must_date_modify",
            "now",
            "toDate",
            "unixEpoch",
        ],
        "functions of time are left out: a file must mean the same whenever it is read",
    ),
    (
        &[
            "bcrypt",
            "buildCustomCert",
            "derivePassword",
            "encryptAES",
            "genCA",
            "genCAWithKey",
            "genPrivateKey",
            "genSelfSignedCert",
            "genSelfSignedCertWithKey",
            "genSignedCert",
            "genSignedCertWithKey",
            "htpasswd",
            "randAlpha",
            "randAlphaNum",
            "randAscii",
            "randBytes",
            "randInt",
            "randNumeric",
            "shuffle",
            "uuidv4",
        ],
        "functions of chance are left out: a file must mean the same whenever it is read",
    ),
    (&["getHostByName"], "a template may not ask other machines; write the address"),
    (&["set", "unset"], "values are never changed in place; use `merge`, `dict` or `omit`"),
    (
        &["typeIs", "typeIsLike", "typeOf"],
        "values have kinds here and no types of Go; use `kindOf` or `kindIs`",
    ),
    (
        &[
            "decryptAES",
            "hello",
            "kebabcase",
            "semver",
            "semverCompare",
            "snakecase",
            "urlJoin",
            "urlParse",
        ],
        "write what it would give, or have the file generated elsewhere",
    ),
];

/// What helps who uses the function `name`, if Traefik has it.
pub(super) fn help(name: &str) -> Option<&'static str> {
    UNSERVED.iter().find(|(names, _)| names.contains(&name)).map(|(_, help)| *help)
}

/// The name in the sentence for a function that nobody knows.
pub(super) fn unknown(message: &str) -> Option<&str> {
    message.strip_suffix(" not defined")?.rsplit_once("function ").map(|(_, name)| name)
}

/// Every name, for whoever must not know any of them.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    UNSERVED.iter().flat_map(|(names, _)| names.iter().copied())
}
