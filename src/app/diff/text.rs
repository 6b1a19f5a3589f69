//! What `diff` tells, for people.

use std::io::{self, Write};

use super::compare::Told;
use super::groups::ChangeTold;
use super::objects::ObjectTold;

/// Writes no more than `limit` of each kind.
pub(super) fn write(told: &Told, limit: usize, out: &mut dyn Write, color: bool) -> io::Result<()> {
    let mut page = Page { out, color };
    for note in &told.notes {
        writeln!(page.out, "note: {note}")?;
    }
    let (lost, others): (Vec<_>, Vec<_>) =
        told.changes.iter().partition(|change| !change.lost.is_empty());
    page.section("protection that is gone", "1;31", &lost, limit, Page::change)?;
    let (altered, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|change| !change.altered.is_empty());
    page.section("protection that changed", "1;33", &altered, limit, Page::change)?;
    for (kind, title) in [
        ("removed", "requests that no service answers any more"),
        ("moved", "requests that another router takes"),
        ("changed", "requests that get something else from the same router"),
        ("added", "requests that a service answers now"),
    ] {
        let of_kind: Vec<_> = others.iter().copied().filter(|change| change.kind == kind).collect();
        page.section(title, "1", &of_kind, limit, Page::change)?;
    }
    let objects: Vec<_> = told.objects.iter().collect();
    page.section("definitions that changed", "1", &objects, limit, Page::object)?;
    let options: Vec<_> = told.options.iter().map(super::values::Difference::one_line).collect();
    let options: Vec<_> = options.iter().collect();
    page.section("static configuration", "1", &options, limit, Page::line)?;
    let unseen: Vec<_> = told.unseen.iter().collect();
    page.section("routers that differ, and no request shows it", "1", &unseen, limit, Page::line)?;
    let (tried, changed) = (told.requests_tried, told.requests_changed);
    writeln!(page.out, "{tried} requests tried; {changed} get something else")
}

struct Page<'w> {
    out: &'w mut dyn Write,
    color: bool,
}

impl Page<'_> {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn section<T>(
        &mut self,
        title: &str,
        code: &str,
        all: &[&T],
        limit: usize,
        mut one: impl FnMut(&mut Self, &T) -> io::Result<()>,
    ) -> io::Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        let title = self.paint(code, title);
        writeln!(self.out, "{title}")?;
        for item in all.iter().take(limit) {
            one(self, item)?;
        }
        if let Some(more) = all.len().checked_sub(limit).filter(|more| *more > 0) {
            writeln!(self.out, "  and {more} more")?;
        }
        writeln!(self.out)
    }

    fn change(&mut self, change: &ChangeTold) -> io::Result<()> {
        let routers = match (&change.old_routers, &change.new_routers, &change.routers) {
            (Some(old), Some(new), _) => format!("{} => {}", old.told(), new.told()),
            (_, _, Some(routers)) => routers.told(),
            _ => String::new(),
        };
        let plural = if change.requests == 1 { "" } else { "s" };
        writeln!(self.out, "  {routers}  ({} request{plural})", change.requests)?;
        for lost in &change.lost {
            let lost = self.paint("31", lost);
            writeln!(self.out, "    ! {lost}")?;
        }
        for altered in &change.altered {
            let altered = self.paint("33", altered);
            writeln!(self.out, "    ! {altered}")?;
        }
        for what in &change.what {
            writeln!(self.out, "    {what}")?;
        }
        let is_silent =
            change.what.is_empty() && change.lost.is_empty() && change.altered.is_empty();
        if change.kind == "moved" && is_silent {
            writeln!(self.out, "    which does the same with it")?;
        }
        for example in &change.examples {
            writeln!(self.out, "      {example}")?;
        }
        Ok(())
    }

    fn object(&mut self, object: &ObjectTold) -> io::Result<()> {
        let users = match object.routers.count {
            0 => String::new(),
            _ => format!(", which matters to {}", object.routers.told()),
        };
        writeln!(self.out, "  {} {}{users}", object.kind, object.name)?;
        for difference in &object.differences {
            writeln!(self.out, "    {}", difference.one_line())?;
        }
        Ok(())
    }

    fn line(&mut self, line: &String) -> io::Result<()> {
        writeln!(self.out, "  {line}")
    }
}
