//! `retryExpression`: when a request is sent once more.
//!
//! The grammar is that of Go expressions, of which Traefik knows four functions, comparisons with a
//! constant on the right, `&&`, `||` and parentheses. There is no `!`.

use http::{Method, StatusCode};

/// How deep parentheses may stand in each other.
const DEEPEST: usize = 64;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    NetworkError,
    Number(Number, Comparison, i64),
    Method { equal: bool, name: String },
}

/// A number that an attempt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Attempts,
    ResponseCode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Expression {
    /// Compiles `text`; the error is a sentence with the place.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let start = parser.skip();
        let value = parser.any()?;
        let expression = parser.expression(value, start)?;
        parser.skip();
        match parser.rest() {
            "" => Ok(expression),
            rest => Err(parser.error(parser.at, &format!("{} is too much here", word(rest)))),
        }
    }

    /// Whether it holds for the attempt with this number, from 1, that ended with this status.
    pub(super) fn holds(&self, attempt: u32, status: StatusCode, method: &Method) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(attempt, status, method)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(attempt, status, method)),
            Self::NetworkError => {
                status == StatusCode::BAD_GATEWAY || status == StatusCode::GATEWAY_TIMEOUT
            }
            Self::Number(number, comparison, with) => {
                let value = match number {
                    Number::Attempts => i64::from(attempt),
                    Number::ResponseCode => i64::from(status.as_u16()),
                };
                match comparison {
                    Comparison::Equal => value == *with,
                    Comparison::NotEqual => value != *with,
                    Comparison::Less => value < *with,
                    Comparison::AtMost => value <= *with,
                    Comparison::Greater => value > *with,
                    Comparison::AtLeast => value >= *with,
                }
            }
            Self::Method { equal, name } => (method.as_str() == name) == *equal,
        }
    }
}

/// What a part of the text stands for.
enum Value {
    Expression(Expression),
    Number(Number),
    Method,
    Integer(i64),
    Text(String),
}

impl Value {
    fn describe(&self) -> &'static str {
        match self {
            Self::Expression(_) => "a condition",
            Self::Number(Number::Attempts) => "`Attempts()`",
            Self::Number(Number::ResponseCode) => "`ResponseCode()`",
            Self::Method => "`RequestMethod()`",
            Self::Integer(_) => "a number",
            Self::Text(_) => "a text",
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips white space; returns where it ends.
    fn skip(&mut self) -> usize {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.at
    }

    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn error(&self, at: usize, message: &str) -> String {
        let column = self.text.get(..at).map_or(0, |before| before.chars().count()) + 1;
        format!("column {column}: {message}")
    }

    fn expression(&self, value: Value, at: usize) -> Result<Expression, String> {
        match value {
            Value::Expression(expression) => Ok(expression),
            other => {
                let message = format!("{} is no condition: compare it", other.describe());
                Err(self.error(at, &message))
            }
        }
    }

    fn any(&mut self) -> Result<Value, String> {
        self.joined("||", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Value, String> {
        self.joined("&&", Self::comparison, Expression::All)
    }

    fn joined(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Result<Value, String>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Value, String> {
        let mut start = self.skip();
        let first = part(self)?;
        if !self.take(sign) {
            return Ok(first);
        }
        let mut parts = vec![self.expression(first, start)?];
        loop {
            start = self.skip();
            let next = part(self)?;
            parts.push(self.expression(next, start)?);
            if !self.take(sign) {
                return Ok(Value::Expression(join(parts)));
            }
        }
    }

    fn comparison(&mut self) -> Result<Value, String> {
        let mut left_at = self.skip();
        let mut left = self.operand()?;
        loop {
            let at = self.skip();
            let Some(comparison) = self.comparison_sign() else { return Ok(left) };
            let right_at = self.skip();
            let right = self.operand()?;
            left = match (left, right) {
                (Value::Number(number), Value::Integer(with)) => {
                    Value::Expression(Expression::Number(number, comparison, with))
                }
                (Value::Method, Value::Text(name)) => {
                    let equal = match comparison {
                        Comparison::Equal => true,
                        Comparison::NotEqual => false,
                        _ => return Err(self.error(at, "a method is compared by `==` and `!=`")),
                    };
                    Value::Expression(Expression::Method { equal, name })
                }
                (Value::Number(_), other) => {
                    let message = format!("expected a number, got {}", other.describe());
                    return Err(self.error(right_at, &message));
                }
                (Value::Method, other) => {
                    let message = format!("expected a text in quotes, got {}", other.describe());
                    return Err(self.error(right_at, &message));
                }
                (other, _) => {
                    let message = format!(
                        "{} cannot be compared: write a function on the left",
                        other.describe()
                    );
                    return Err(self.error(left_at, &message));
                }
            };
            left_at = at;
        }
    }

    fn comparison_sign(&mut self) -> Option<Comparison> {
        // The longer ones first.
        for (sign, comparison) in [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ] {
            if self.take(sign) {
                return Some(comparison);
            }
        }
        None
    }

    fn operand(&mut self) -> Result<Value, String> {
        let at = self.skip();
        match self.rest().chars().next() {
            None => Err(self.error(at, "something is missing here")),
            Some('(') => self.parenthesis(),
            Some('"' | '`') => self.quoted(),
            Some(c) if c.is_ascii_digit() => self.integer(),
            Some(c) if c.is_alphabetic() || c == '_' => self.function(),
            Some('!') => Err(self.error(at, "`!` is not supported: use `!=`")),
            Some(c) => Err(self.error(at, &format!("{c:?} is not expected here"))),
        }
    }

    fn parenthesis(&mut self) -> Result<Value, String> {
        let at = self.at;
        if self.depth == DEEPEST {
            return Err(self.error(at, "too many parentheses in each other"));
        }
        self.depth += 1;
        self.take("(");
        let value = self.any()?;
        self.depth -= 1;
        if self.take(")") { Ok(value) } else { Err(self.error(at, "this is not closed")) }
    }

    fn quoted(&mut self) -> Result<Value, String> {
        let at = self.at;
        let raw = self.take("`");
        if !raw {
            self.take("\"");
        }
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '`' if raw => {
                    self.at += offset + 1;
                    return Ok(Value::Text(text));
                }
                '"' if !raw => {
                    self.at += offset + 1;
                    return Ok(Value::Text(text));
                }
                '\n' if !raw => break,
                '\\' if !raw => {
                    let Some((_, c @ ('"' | '\\'))) = characters.next() else {
                        let message = "only `\\\"` and `\\\\` may stand behind a backslash";
                        return Err(self.error(self.at + offset, message));
                    };
                    text.push(c);
                }
                c => text.push(c),
            }
        }
        Err(self.error(at, "this text is not closed"))
    }

    fn integer(&mut self) -> Result<Value, String> {
        let at = self.at;
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '_'))
            .unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        self.at += end;
        match digits.parse() {
            Ok(value) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Value::Integer(value))
            }
            _ => Err(self.error(at, &format!("`{digits}` is not a whole number"))),
        }
    }

    fn function(&mut self) -> Result<Value, String> {
        let at = self.at;
        let name = word(self.rest());
        let value = match name {
            "IsNetworkError" => Value::Expression(Expression::NetworkError),
            "Attempts" => Value::Number(Number::Attempts),
            "ResponseCode" => Value::Number(Number::ResponseCode),
            "RequestMethod" => Value::Method,
            _ => {
                let message = format!(
                    "unknown function `{name}` (write Attempts(), ResponseCode(), \
                     IsNetworkError() or RequestMethod())"
                );
                return Err(self.error(at, &message));
            }
        };
        self.at += name.len();
        if self.take("(") && self.take(")") {
            return Ok(value);
        }
        Err(self.error(at, &format!("a call of `{name}` is written `{name}()`")))
    }
}

/// The word, or at least the character, at the beginning of `text`.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let end = if end == 0 { text.chars().next().map_or(0, char::len_utf8) } else { end };
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                "column 1: a number cannot be compared: write a function on the left",
            ),
            ("ResponseCode() == \"502\"", "column 19: expected a number, got a text"),
            ("ResponseCode() == 5.2", "column 19: `5.2` is not a whole number"),
            ("ResponseCode() == 0x1F", "column 19: `0x1F` is not a whole number"),
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
            (
                "IsNetworkError",
                "column 1: a call of `IsNetworkError` is written `IsNetworkError()`",
            ),
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

    fn trees() -> impl Strategy<Value = Expression> {
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
            Just(Expression::NetworkError),
            (numbers, comparisons, 0..600_i64)
                .prop_map(|(number, by, with)| Expression::Number(number, by, with)),
            (any::<bool>(), "[A-Z\"\\\\]{0,4}")
                .prop_map(|(equal, name)| Expression::Method { equal, name }),
        ];
        leaves.prop_recursive(4, 24, 3, |inner| {
            let parts = proptest::collection::vec(inner, 2..4);
            prop_oneof![parts.clone().prop_map(Expression::All), parts.prop_map(Expression::Any),]
        })
    }

    /// With parentheses wherever they are needed to keep the tree.
    fn print(tree: &Expression) -> String {
        let join = |parts: &[Expression], sign: &str| {
            let parts: Vec<_> = parts.iter().map(|part| format!("({})", print(part))).collect();
            parts.join(sign)
        };
        match tree {
            Expression::All(parts) => join(parts, " && "),
            Expression::Any(parts) => join(parts, "||"),
            Expression::NetworkError => "IsNetworkError()".into(),
            Expression::Number(number, comparison, with) => {
                let sign = match comparison {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                    Comparison::Less => "<",
                    Comparison::AtMost => "<=",
                    Comparison::Greater => ">",
                    Comparison::AtLeast => ">=",
                };
                format!("{number:?}() {sign}{with}")
            }
            Expression::Method { equal, name } => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                format!("RequestMethod(){} \"{name}\"", if *equal { "==" } else { "!=" })
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tree in trees()) {
            prop_assert_eq!(Expression::parse(&print(&tree)), Ok(tree));
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_place(text in "[ -~äAttempsRquodIN()<>=!&|\"`0-9]{0,40}") {
            if let Err(error) = Expression::parse(&text) {
                prop_assert!(error.starts_with("column "));
            }
        }
    }
}
