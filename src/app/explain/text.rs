//! What `explain` tells, for people.

use std::io::{self, Write};

use super::told::{
    Count, EntryPointTold, MiddlewareTold, OtherTold, RouterTold, ServiceTold, Told, Verdict,
};

/// Writes all of it.
pub(super) fn write(told: &Told, out: &mut dyn Write, color: bool) -> io::Result<()> {
    let mut page = Page { out, color };
    let request = &told.request;
    let assumed = if request.client_assumed { " (assumed)" } else { "" };
    let line = format!("{} {}", request.method, request.url);
    let line = page.bold(&line);
    writeln!(page.out, "{line}  from {}{assumed}", request.client_ip)?;
    for note in &told.notes {
        writeln!(page.out, "note: {note}")?;
    }
    for entry_point in &told.entry_points {
        writeln!(page.out)?;
        page.entry_point(entry_point)?;
    }
    Ok(())
}

struct Page<'w> {
    out: &'w mut dyn Write,
    color: bool,
}

impl Page<'_> {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn entry_point(&mut self, told: &EntryPointTold) -> io::Result<()> {
        let side = if told.tls { "TLS" } else { "clear text" };
        let address = told.address.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
        let name = self.bold(&told.entry_point);
        writeln!(self.out, "entry point {name}{address}, {side}")?;
        if let (Some(host), Some(path)) = (&told.host, &told.path) {
            writeln!(self.out, "  rules see   host `{host}`, path `{path}`")?;
        }
        if let Some(became) = &told.became {
            writeln!(self.out, "  made canonical, the target is {became}")?;
        }
        if told.trusts_forwarded_headers {
            writeln!(self.out, "  the X-Forwarded headers of this client are believed")?;
        }
        if let Some(options) = &told.tls_options {
            let handshake = told.handshake.as_ref();
            let handshake = handshake.map(|says| format!(": {says}")).unwrap_or_default();
            writeln!(self.out, "  TLS options {options}{handshake}")?;
        }
        self.outcome(told)?;
        for router in &told.routers {
            self.router(router)?;
        }
        if let Some(service) = &told.service {
            writeln!(self.out)?;
            self.service(service, 1)?;
        }
        self.others(told)
    }

    fn outcome(&mut self, told: &EntryPointTold) -> io::Result<()> {
        let (outcome, code) = (&told.outcome, if told.outcome.answered { "1;32" } else { "1;31" });
        let status = match outcome.status {
            Some(status) => status.to_string(),
            None if outcome.answered => "ok".to_owned(),
            None => "the connection ends".to_owned(),
        };
        let status = self.paint(code, &status);
        writeln!(self.out, "  => {status}: {}", outcome.why)
    }

    fn router(&mut self, router: &RouterTold) -> io::Result<()> {
        let (name, place) = (self.bold(&router.name), self.place(router.place.as_deref()));
        writeln!(self.out, "\n  router {name}{place}")?;
        writeln!(self.out, "    rule        {}", router.rule)?;
        let of_rule = if router.priority_of_rule { " (the length of the rule)" } else { "" };
        writeln!(self.out, "    priority    {}{of_rule}", router.priority)?;
        if let Some(options) = &router.tls_options {
            writeln!(self.out, "    TLS options {options}")?;
        }
        for error in &router.errors {
            let error = self.paint("31", error);
            writeln!(self.out, "    error       {error}")?;
        }
        self.middlewares(&router.middlewares, "    ")?;
        writeln!(self.out, "    service     {}", router.service)
    }

    fn place(&self, place: Option<&str>) -> String {
        place.map(|place| format!("  {}", self.faint(place))).unwrap_or_default()
    }

    fn middlewares(&mut self, all: &[MiddlewareTold], indent: &str) -> io::Result<()> {
        let width = |of: fn(&MiddlewareTold) -> &str| {
            all.iter().map(|one| of(one).chars().count()).max().unwrap_or_default()
        };
        let (names, kinds) = (width(|one| &one.name), width(|one| &one.kind));
        for (number, one) in all.iter().enumerate() {
            let label = if number == 0 { "middlewares" } else { "" };
            let effect = one.effect.as_deref().unwrap_or_default();
            let place = self.place(one.place.as_deref());
            let line = format!(
                "{indent}{label:<11} {}. {:<names$}  {:<kinds$}{place}",
                number + 1,
                one.name,
                one.kind
            );
            let effect = if effect.is_empty() { String::new() } else { format!("  {effect}") };
            writeln!(self.out, "{}{effect}", line.trim_end())?;
        }
        Ok(())
    }

    fn service(&mut self, service: &ServiceTold, depth: usize) -> io::Result<()> {
        let indent = "  ".repeat(depth);
        let role = service.role.as_ref().map(|role| format!("  {role}")).unwrap_or_default();
        let kind =
            if service.kind.is_empty() { String::new() } else { format!("  {}", service.kind) };
        let details = match &service.details[..] {
            [] => String::new(),
            details => format!(" ({})", details.join(", ")),
        };
        let (name, place) = (self.bold(&service.name), self.place(service.place.as_deref()));
        writeln!(self.out, "{indent}service {name}{role}{kind}{details}{place}")?;
        if let Some(problem) = &service.problem {
            let problem = self.paint("31", problem);
            writeln!(self.out, "{indent}  error: {problem}")?;
        }
        self.middlewares(&service.middlewares, &format!("{indent}  "))?;
        for server in &service.servers {
            let weight =
                server.weight.map(|weight| format!("  weight {weight}")).unwrap_or_default();
            let status = match server.status.as_deref() {
                Some("UP") => self.paint("32", "  UP"),
                Some(other) => self.paint("31", &format!("  {other}")),
                None => String::new(),
            };
            writeln!(self.out, "{indent}  {}{weight}{status}", server.url)?;
        }
        for child in &service.services {
            self.service(child, depth + 1)?;
        }
        Ok(())
    }

    fn others(&mut self, told: &EntryPointTold) -> io::Result<()> {
        if told.others.is_empty() && told.not_listed.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\n  other routers")?;
        for other in &told.others {
            self.other(other)?;
        }
        for count in &told.not_listed {
            writeln!(self.out, "    {}", counted(count))?;
        }
        Ok(())
    }

    fn other(&mut self, other: &OtherTold) -> io::Result<()> {
        let (name, place) = (self.bold(&other.name), self.place(other.place.as_deref()));
        writeln!(self.out, "    {name}  priority {}{place}", other.priority)?;
        for why in &other.why {
            writeln!(self.out, "      {why}")?;
        }
        Ok(())
    }
}

fn counted(count: &Count) -> String {
    let (number, one) = (grouped(count.count), count.count == 1);
    let (other, is) = if one { ("other", "is") } else { ("others", "are") };
    let does = if one { "does" } else { "do" };
    match count.verdict {
        Verdict::OtherHost if one => "1 other is for another host".to_owned(),
        Verdict::OtherHost => format!("{number} others are for other hosts"),
        Verdict::AnyHost => format!("{number} {other} {is} for any host and {does} not match"),
        Verdict::DoesNotMatch => {
            format!("{number} {other} {is} for this host and {does} not match")
        }
        Verdict::Elsewhere => format!("{number} {other} {is} not asked here"),
        Verdict::Loses if one => "1 other also matches, with a lower priority".to_owned(),
        Verdict::Loses => format!("{number} {other} also match, with lower priorities"),
    }
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        let count = |count, verdict| counted(&Count { count, verdict });
        assert_eq!(count(9_998, Verdict::OtherHost), "9,998 others are for other hosts");
        assert_eq!(count(1, Verdict::OtherHost), "1 other is for another host");
        for (verdict, one, two) in [
            (
                Verdict::AnyHost,
                "1 other is for any host and does not match",
                "2 others are for any host and do not match",
            ),
            (
                Verdict::DoesNotMatch,
                "1 other is for this host and does not match",
                "2 others are for this host and do not match",
            ),
            (
                Verdict::Loses,
                "1 other also matches, with a lower priority",
                "2 others also match, with lower priorities",
            ),
        ] {
            assert_eq!((&*count(1, verdict), &*count(2, verdict)), (one, two));
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((grouped(0), grouped(999)), ("0".to_owned(), "999".to_owned()));
    }
}
