//! What the expression of a circuit breaker asks, and what it calls it.

use super::window::Window;
use crate::middleware::expression::{Call, Called, Comparison, Constant, Mismatch, Vocabulary};

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// Of a part of the requests.
    Ratio(Ratio, Comparison, f64),
    /// Of the latency in milliseconds that this percentage of the requests kept.
    Latency(f64, Comparison, i64),
}

/// A part of the requests of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ratio {
    /// Those that ended with 502 or 504.
    NetworkErrors,
    /// Those whose status is from the first number up to, and without, the second, of those with
    /// a status from the third up to, and without, the fourth.
    Codes([i64; 4]),
}

impl Condition {
    /// Whether it holds now.
    pub(super) fn holds(&self, window: &Window) -> bool {
        match self {
            Self::Ratio(ratio, comparison, with) => {
                let value = match *ratio {
                    Ratio::NetworkErrors => {
                        window.ratio(|status| status == 502 || status == 504, |_| true)
                    }
                    Ratio::Codes([from, to, of_from, of_to]) => window.ratio(
                        |status| (from..to).contains(&i64::from(status)),
                        |status| (of_from..of_to).contains(&i64::from(status)),
                    ),
                };
                comparison.holds(value, *with)
            }
            Self::Latency(quantile, comparison, with) => comparison
                .holds(window.latency(*quantile).as_millis(), u128::try_from(*with).unwrap_or(0)),
        }
    }

    /// Whether it asks for latencies.
    pub(super) fn is_of_latency(&self) -> bool {
        matches!(self, Self::Latency(..))
    }
}

/// The functions of a circuit breaker.
pub(super) struct Words;

/// What a function returns.
pub(super) enum Value {
    Ratio(Ratio),
    Latency(f64),
}

impl Vocabulary for Words {
    type Condition = Condition;
    type Value = Value;

    const FUNCTIONS: &'static str = "NetworkErrorRatio(), ResponseCodeRatio(500, 600, 0, 600) or \
                                     LatencyAtQuantileMS(50.0)";

    fn call(name: &str, arguments: &[Constant]) -> Option<Call<Condition, Value>> {
        use Constant::{Float, Integer};
        let value = match (name, arguments) {
            ("NetworkErrorRatio", []) => Value::Ratio(Ratio::NetworkErrors),
            ("NetworkErrorRatio", _) => return Some(Err("NetworkErrorRatio()")),
            (
                "ResponseCodeRatio",
                &[Integer(from), Integer(to), Integer(of_from), Integer(of_to)],
            ) => Value::Ratio(Ratio::Codes([from, to, of_from, of_to])),
            ("ResponseCodeRatio", _) => {
                return Some(Err("ResponseCodeRatio(500, 600, 0, 600)"));
            }
            ("LatencyAtQuantileMS", &[Float(quantile)]) => Value::Latency(quantile),
            ("LatencyAtQuantileMS", _) => return Some(Err("LatencyAtQuantileMS(50.0)")),
            _ => return None,
        };
        Some(Ok(Called::Value(value)))
    }

    fn name(value: &Value) -> &'static str {
        match value {
            Value::Ratio(Ratio::NetworkErrors) => "NetworkErrorRatio",
            Value::Ratio(Ratio::Codes(_)) => "ResponseCodeRatio",
            Value::Latency(_) => "LatencyAtQuantileMS",
        }
    }

    fn compare(
        value: Value,
        comparison: Comparison,
        with: Constant,
    ) -> Result<Condition, Mismatch> {
        match (value, with) {
            (Value::Ratio(ratio), Constant::Float(with)) => {
                Ok(Condition::Ratio(ratio, comparison, with))
            }
            (Value::Latency(quantile), Constant::Integer(with)) => {
                Ok(Condition::Latency(quantile, comparison, with))
            }
            (Value::Ratio(_), other) => {
                Err(Mismatch::Constant("a number with a point, such as `0.30`", other))
            }
            (Value::Latency(_), other) => {
                Err(Mismatch::Constant("a whole number of milliseconds", other))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::middleware::expression::Expression;

    /// Ten requests: 2 of 502, 1 of 504, 3 of 500, 4 of 200, taking 10, 20, … 100 ms.
    fn holds(text: &str) -> bool {
        let expression = Expression::parse::<Words>(text).unwrap_or_else(|error| panic!("{error}"));
        let mut window = Window::new(true);
        for (index, status) in
            [502, 502, 504, 500, 500, 500, 200, 200, 200, 200].into_iter().enumerate()
        {
            let latency = Duration::from_millis(10 * (index as u64 + 1));
            window.note(Duration::ZERO, status, latency);
        }
        expression.holds(&mut |condition| condition.holds(&window))
    }

    /// RP 7.6.
    #[test]
    fn ratios_and_latencies_are_compared() {
        for (text, want) in [
            ("NetworkErrorRatio() == 0.3", true),
            ("NetworkErrorRatio() > 0.30", false),
            ("NetworkErrorRatio() >= 0.30", true),
            ("NetworkErrorRatio() < 3e-1", false),
            ("NetworkErrorRatio() <= .3", true),
            ("NetworkErrorRatio() != 0.3", false),
            ("ResponseCodeRatio(500, 600, 0, 600) > 0.59", true),
            ("ResponseCodeRatio(500,502,0,600) == 0.3", true),
            ("ResponseCodeRatio(500, 500, 0, 600) == 0.0", true),
            ("ResponseCodeRatio(502, 503, 500, 600) > 0.33", true),
            ("ResponseCodeRatio(502, 503, 500, 600) > 0.34", false),
            // Nothing to divide by.
            ("ResponseCodeRatio(200, 300, 400, 500) == 0.0", true),
            ("LatencyAtQuantileMS(50.0) == 50", true),
            ("LatencyAtQuantileMS(100.0) >= 100 && LatencyAtQuantileMS(100.0) <= 101", true),
            ("LatencyAtQuantileMS(999.0) > 99", true),
            ("LatencyAtQuantileMS(0.0) == 0", true),
            (
                "NetworkErrorRatio() > 0.5 || (ResponseCodeRatio(500, 600, 0, 600) > 0.5 && LatencyAtQuantileMS(90.0) > 80)",
                true,
            ),
        ] {
            assert_eq!(holds(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, want) in [
            ("", "column 1: something is missing here"),
            ("NetworkErrorRatio()", "column 1: `NetworkErrorRatio()` is no condition: compare it"),
            (
                "NetworkErrorRatio() > 1",
                "column 23: expected a number with a point, such as `0.30`, got a whole number",
            ),
            (
                "LatencyAtQuantileMS(50.0) > 1.5",
                "column 29: expected a whole number of milliseconds, got a number with a point",
            ),
            (
                "LatencyAtQuantileMS(50) > 1",
                "column 1: a call of `LatencyAtQuantileMS` is written `LatencyAtQuantileMS(50.0)`",
            ),
            (
                "ResponseCodeRatio(500, 600) > 0.5",
                "column 1: a call of `ResponseCodeRatio` is written `ResponseCodeRatio(500, 600, 0, 600)`",
            ),
            (
                "NetworkErrorRatio(1) > 0.5",
                "column 1: a call of `NetworkErrorRatio` is written `NetworkErrorRatio()`",
            ),
            ("ResponseCodeRatio(500 600) > 0.5", "column 1: this call is not closed"),
            ("ResponseCodeRatio(NetworkErrorRatio()) > 0.5", "column 19: 'N' is not expected here"),
            (
                "0.3 < NetworkErrorRatio()",
                "column 1: a number with a point cannot be compared: write a function on the left",
            ),
            (
                "NetworkErrorRatio() > NetworkErrorRatio()",
                "column 23: expected a constant, got `NetworkErrorRatio()`",
            ),
            (
                "RequestThreshold() > 5",
                "column 1: unknown function `RequestThreshold` (write NetworkErrorRatio(), ResponseCodeRatio(500, 600, 0, 600) or LatencyAtQuantileMS(50.0))",
            ),
            ("!(NetworkErrorRatio() > 0.5)", "column 1: `!` is not supported: use `!=`"),
            ("NetworkErrorRatio() > 1.2.3", "column 23: `1.2.3` is not a number"),
            ("NetworkErrorRatio() > 1e999", "column 23: `1e999` is not a number"),
        ] {
            assert_eq!(Expression::parse::<Words>(text).unwrap_err(), want, "{text}");
        }
    }
}
