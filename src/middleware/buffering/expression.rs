//! `retryExpression`: when a request is sent once more.

use http::{Method, StatusCode};

use crate::middleware::expression::{
    self, Call, Called, Comparison, Constant, Mismatch, Vocabulary,
};

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression(expression::Expression<Condition>);

/// What an attempt can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    NetworkError,
    Number(Number, Comparison, i64),
    Method { equal: bool, name: String },
}

/// A number that an attempt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Attempts,
    ResponseCode,
}

impl Expression {
    /// Compiles `text`; the error is a sentence with the place.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        expression::Expression::parse::<Words>(text).map(Self)
    }

    /// Whether it holds for the attempt with this number, from 1, that ended with this status.
    pub(super) fn holds(&self, attempt: u32, status: StatusCode, method: &Method) -> bool {
        self.0.holds(&mut |condition| match condition {
            Condition::NetworkError => {
                status == StatusCode::BAD_GATEWAY || status == StatusCode::GATEWAY_TIMEOUT
            }
            Condition::Number(number, comparison, with) => {
                let value = match number {
                    Number::Attempts => i64::from(attempt),
                    Number::ResponseCode => i64::from(status.as_u16()),
                };
                comparison.holds(value, *with)
            }
            Condition::Method { equal, name } => (method.as_str() == name) == *equal,
        })
    }
}

/// The functions of a `retryExpression`.
struct Words;

/// What a function returns.
enum Value {
    Number(Number),
    Method,
}

impl Vocabulary for Words {
    type Condition = Condition;
    type Value = Value;

    const FUNCTIONS: &'static str =
        "Attempts(), ResponseCode(), IsNetworkError() or RequestMethod()";

    fn call(name: &str, arguments: &[Constant]) -> Option<Call<Condition, Value>> {
        let (called, written) = match name {
            "IsNetworkError" => (Called::Condition(Condition::NetworkError), "IsNetworkError()"),
            "Attempts" => (Called::Value(Value::Number(Number::Attempts)), "Attempts()"),
            "ResponseCode" => {
                (Called::Value(Value::Number(Number::ResponseCode)), "ResponseCode()")
            }
            "RequestMethod" => (Called::Value(Value::Method), "RequestMethod()"),
            _ => return None,
        };
        Some(if arguments.is_empty() { Ok(called) } else { Err(written) })
    }

    fn name(value: &Value) -> &'static str {
        match value {
            Value::Number(Number::Attempts) => "Attempts",
            Value::Number(Number::ResponseCode) => "ResponseCode",
            Value::Method => "RequestMethod",
        }
    }

    fn compare(
        value: Value,
        comparison: Comparison,
        with: Constant,
    ) -> Result<Condition, Mismatch> {
        match (value, with) {
            (Value::Number(number), Constant::Integer(with)) => {
                Ok(Condition::Number(number, comparison, with))
            }
            (Value::Method, Constant::Text(name)) => match comparison {
                Comparison::Equal => Ok(Condition::Method { equal: true, name }),
                Comparison::NotEqual => Ok(Condition::Method { equal: false, name }),
                _ => Err(Mismatch::Sign("a method is compared by `==` and `!=`")),
            },
            (Value::Number(_), other) => Err(Mismatch::Constant("a whole number", other)),
            (Value::Method, other) => Err(Mismatch::Constant("a text in quotes", other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Tree = expression::Expression<Condition>;

    fn holds(text: &str, attempt: u32, status: u16, method: &str) -> bool {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let status = StatusCode::from_u16(status).unwrap();
        expression.holds(attempt, status, &Method::from_bytes(method.as_bytes()).unwrap())
    }

    /// RP 7.6.
    #[test]
    fn expressions_of_traefiks_documentation() {
        for (text, attempt, status, want) in [
            ("IsNetworkError()", 1, 502, true),
            ("IsNetworkError()", 1, 504, true),
            ("IsNetworkError()", 1, 503, false),
            ("IsNetworkError() && Attempts() < 2", 1, 502, true),
            ("IsNetworkError() && Attempts() < 2", 2, 502, false),
            ("Attempts() <= 2 && ResponseCode() == 502", 2, 502, true),
            ("Attempts()<=2&&(ResponseCode()==502||ResponseCode()==503)", 2, 503, true),
            ("ResponseCode() >= 500 && ResponseCode() != 501", 1, 501, false),
            ("ResponseCode() > 499", 1, 500, true),
            (" \n( ( IsNetworkError ( ) ) ) ", 1, 502, true),
            // `&&` binds tighter.
            ("IsNetworkError() || Attempts() > 5 && Attempts() > 6", 1, 502, true),
            ("Attempts() > 5 && Attempts() > 6 || IsNetworkError()", 1, 502, true),
            ("(IsNetworkError() || Attempts() > 5) && Attempts() > 6", 1, 502, false),
        ] {
            assert_eq!(holds(text, attempt, status, "GET"), want, "{text}");
        }
        for (text, method, want) in [
            ("RequestMethod() == \"GET\"", "GET", true),
            ("RequestMethod() != `GET`", "GET", false),
            ("RequestMethod() == \"get\"", "GET", false),
            ("RequestMethod() != \"\\\"\\\\\"", "PUT", true),
        ] {
            assert_eq!(holds(text, 1, 502, method), want, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, want) in [
            ("", "column 1: something is missing here"),
            ("Attempts()", "column 1: `Attempts()` is no condition: compare it"),
            (
                "Attempts() < 2 && ResponseCode()",
                "column 19: `ResponseCode()` is no condition: compare it",
            ),
            (
                "502 == ResponseCode()",
                "column 1: a whole number cannot be compared: write a function on the left",
            ),
            ("ResponseCode() == \"502\"", "column 19: expected a whole number, got a text"),
            (
                "ResponseCode() == 5.2",
                "column 19: expected a whole number, got a number with a point",
            ),
            ("ResponseCode() == 0x1F", "column 19: `0x1F` is not a number"),
            ("ResponseCode() == -1", "column 19: '-' is not expected here"),
            ("RequestMethod() > \"A\"", "column 17: a method is compared by `==` and `!=`"),
            (
                "RequestMethod() == GET",
                "column 20: unknown function `GET` (write Attempts(), ResponseCode(), IsNetworkError() or RequestMethod())",
            ),
            ("RequestMethod() == \"GET", "column 20: this text is not closed"),
            (
                "RequestMethod() == \"\\n\"",
                "column 21: only `\\\"` and `\\\\` may stand behind a backslash",
            ),
            ("!IsNetworkError()", "column 1: `!` is not supported: use `!=`"),
            ("IsNetworkError", "column 1: a call of `IsNetworkError` is written with parentheses"),
            (
                "IsNetworkError(1)",
                "column 1: a call of `IsNetworkError` is written `IsNetworkError()`",
            ),
            (
                "IsNetworkError() == IsNetworkError()",
                "column 1: a condition cannot be compared: write a function on the left",
            ),
            ("(IsNetworkError()", "column 1: this is not closed"),
            ("IsNetworkError())", "column 17: ) is too much here"),
            ("IsNetworkError() Attempts() < 2", "column 18: Attempts is too much here"),
            ("IsNetworkError() &&", "column 20: something is missing here"),
            ("IsNetworkError() & Attempts() < 2", "column 18: & is too much here"),
            (
                "ä",
                "column 1: unknown function `ä` (write Attempts(), ResponseCode(), IsNetworkError() or RequestMethod())",
            ),
        ] {
            assert_eq!(Expression::parse(text).unwrap_err(), want, "{text}");
        }
        let deep = "(".repeat(100_000);
        assert!(Expression::parse(&deep).unwrap_err().contains("too many parentheses"));
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let comparisons = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Less),
            Just(Comparison::AtMost),
            Just(Comparison::Greater),
            Just(Comparison::AtLeast),
        ];
        let numbers = prop_oneof![Just(Number::Attempts), Just(Number::ResponseCode)];
        let leaves = prop_oneof![
            Just(Condition::NetworkError),
            (numbers, comparisons, 0..600_i64)
                .prop_map(|(number, by, with)| Condition::Number(number, by, with)),
            (any::<bool>(), "[A-Z\"\\\\]{0,4}")
                .prop_map(|(equal, name)| Condition::Method { equal, name }),
        ];
        leaves.prop_map(Tree::Is).prop_recursive(4, 24, 3, |inner| {
            let parts = proptest::collection::vec(inner, 2..4);
            prop_oneof![parts.clone().prop_map(Tree::All), parts.prop_map(Tree::Any)]
        })
    }

    /// With parentheses wherever they are needed to keep the tree.
    fn print(tree: &Tree) -> String {
        let join = |parts: &[Tree], sign: &str| {
            let parts: Vec<_> = parts.iter().map(|part| format!("({})", print(part))).collect();
            parts.join(sign)
        };
        match tree {
            Tree::All(parts) => join(parts, " && "),
            Tree::Any(parts) => join(parts, "||"),
            Tree::Is(Condition::NetworkError) => "IsNetworkError()".into(),
            Tree::Is(Condition::Number(number, comparison, with)) => {
                let sign = Comparison::SIGNS.iter().find(|(_, by)| by == comparison).unwrap().0;
                format!("{number:?}() {sign}{with}")
            }
            Tree::Is(Condition::Method { equal, name }) => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                format!("RequestMethod(){} \"{name}\"", if *equal { "==" } else { "!=" })
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tree in trees()) {
            prop_assert_eq!(Expression::parse(&print(&tree)), Ok(Expression(tree)));
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_place(text in "[ -~äAttempsRquodIN()<>=!&|\"`0-9]{0,40}") {
            if let Err(error) = Expression::parse(&text) {
                prop_assert!(error.starts_with("column "));
            }
        }
    }
}
