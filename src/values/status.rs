//! Statuses as options list them: one status or one range per item.

use http::StatusCode;

use super::BuildError;

/// A list of statuses such as `503` and `500-599`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusRanges(Box<[(u16, u16)]>);

impl StatusRanges {
    /// Reads the items of `option`, and warns of those that no server answers with.
    pub fn read(
        option: &str,
        items: &[String],
        warnings: &mut Vec<BuildError>,
    ) -> Result<Self, BuildError> {
        let read = |(index, text): (usize, &String)| {
            let place = format!("{option}[{index}]");
            let Some(range) = range(text) else {
                let message = format!("{text:?} is neither a status nor a range such as 500-599");
                return Err(BuildError::at(place, message));
            };
            if range.0 > 599 {
                let message = format!("`{option}` {text}: servers have no status above 599");
                warnings.push(BuildError::at(place, message));
            }
            Ok(range)
        };
        items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `status` is among them.
    pub fn contains(&self, status: StatusCode) -> bool {
        let status = status.as_u16();
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads one item.
pub fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (100 <= low && low <= high && high <= 999).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_ranges() {
        let items = ["503".to_owned(), " 500 - 501 ".to_owned()];
        let mut warnings = Vec::new();
        let ranges = StatusRanges::read("status", &items, &mut warnings).unwrap();
        assert!(warnings.is_empty());
        StatusRanges::read("status", &["600".to_owned()], &mut warnings).unwrap();
        assert_eq!(warnings[0].option, "status[0]");
        for (status, listed) in [(499, false), (500, true), (501, true), (502, false), (503, true)]
        {
            assert_eq!(ranges.contains(StatusCode::from_u16(status).unwrap()), listed, "{status}");
        }
        assert!(!ranges.is_empty() && StatusRanges::default().is_empty());
    }

    #[test]
    fn what_is_neither_is_named() {
        for text in ["", "x", "99", "1000", "501-500", "500-", "500,501", "500-501-502", "-1"] {
            let items = ["500".to_owned(), text.to_owned()];
            let error = StatusRanges::read("status", &items, &mut Vec::new()).unwrap_err();
            assert_eq!(error.option, "status[1]", "{text}");
        }
    }
}
