//! The expressions of `buffering` and `circuitBreaker`: one grammar, and the words of each.
//!
//! The grammar is that of Go expressions, of which Traefik knows calls with constants, comparisons
//! with a constant on the right, `&&`, `||` and parentheses. There is no `!`.

/// How deep parentheses may stand in each other.
const DEEPEST: usize = 64;

/// A compiled expression over the conditions of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression<C> {
    /// All of these hold.
    All(Vec<Self>),
    /// One of these holds at least.
    Any(Vec<Self>),
    /// This holds.
    Is(C),
}

/// The functions that an expression may call.
pub(super) trait Vocabulary {
    /// What is true or false.
    type Condition;
    /// What a function returns that has to be compared.
    type Value;
    /// The functions as a sentence has them.
    const FUNCTIONS: &'static str;

    /// Calls a function. `None`: there is none of this name.
    fn call(name: &str, arguments: &[Constant]) -> Option<Call<Self::Condition, Self::Value>>;

    /// The name of the function that returned `value`.
    fn name(value: &Self::Value) -> &'static str;

    /// Compares a value with a constant.
    fn compare(
        value: Self::Value,
        comparison: Comparison,
        with: Constant,
    ) -> Result<Self::Condition, Mismatch>;
}

/// What a call stands for.
pub(super) enum Called<C, V> {
    /// It is true or false.
    Condition(C),
    /// It has to be compared.
    Value(V),
}

/// What becomes of a call; the error is how it is written.
pub(super) type Call<C, V> = Result<Called<C, V>, &'static str>;

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    /// A number without a point.
    Integer(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// A text in quotes.
    Text(String),
}

impl Constant {
    fn describe(&self) -> &'static str {
        match self {
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Text(_) => "a text",
        }
    }
}

/// What does not fit in a comparison.
pub(super) enum Mismatch {
    /// The sign; a sentence.
    Sign(&'static str),
    /// The constant; what is expected instead.
    Constant(&'static str, Constant),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    /// All of them as they are written, the longer ones first.
    pub(super) const SIGNS: [(&'static str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    /// Whether it holds between these.
    pub(super) fn holds<T: PartialOrd + Copy>(self, left: T, right: T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
        }
    }
}

impl<C> Expression<C> {
    /// Compiles `text`; the error is a sentence with the place.
    pub(super) fn parse<V: Vocabulary<Condition = C>>(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let start = parser.skip();
        let term = parser.any::<V>()?;
        let expression = parser.expression::<V>(term, start)?;
        parser.skip();
        match parser.rest() {
            "" => Ok(expression),
            rest => Err(parser.error(parser.at, &format!("{} is too much here", word(rest)))),
        }
    }

    /// Whether it holds, when `is` tells which conditions do. Stops as soon as that is known.
    pub(super) fn holds(&self, is: &mut impl FnMut(&C) -> bool) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(is)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(is)),
            Self::Is(condition) => is(condition),
        }
    }

    /// Whether `is` holds for one of the conditions, wherever it stands.
    pub(super) fn mentions(&self, is: fn(&C) -> bool) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.mentions(is)),
            Self::Is(condition) => is(condition),
        }
    }
}

/// What a part of the text stands for.
enum Term<V: Vocabulary> {
    Expression(Expression<V::Condition>),
    Value(V::Value),
    Constant(Constant),
}

impl<V: Vocabulary> Term<V> {
    fn describe(&self) -> String {
        match self {
            Self::Expression(_) => "a condition".into(),
            Self::Value(value) => format!("`{}()`", V::name(value)),
            Self::Constant(constant) => constant.describe().into(),
        }
    }
}

/// Makes one expression of several.
type Join<C> = fn(Vec<Expression<C>>) -> Expression<C>;

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

    fn expression<V: Vocabulary>(
        &self,
        term: Term<V>,
        at: usize,
    ) -> Result<Expression<V::Condition>, String> {
        match term {
            Term::Expression(expression) => Ok(expression),
            other => {
                let message = format!("{} is no condition: compare it", other.describe());
                Err(self.error(at, &message))
            }
        }
    }

    fn any<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        self.joined::<V>("||", Self::all::<V>, Expression::Any)
    }

    fn all<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        self.joined::<V>("&&", Self::comparison::<V>, Expression::All)
    }

    fn joined<V: Vocabulary>(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Result<Term<V>, String>,
        join: Join<V::Condition>,
    ) -> Result<Term<V>, String> {
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
                return Ok(Term::Expression(join(parts)));
            }
        }
    }

    fn comparison<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        let mut left_at = self.skip();
        let mut left = self.operand::<V>()?;
        loop {
            let at = self.skip();
            let Some(comparison) = self.comparison_sign() else { return Ok(left) };
            let right_at = self.skip();
            let right = self.operand::<V>()?;
            let value = match left {
                Term::Value(value) => value,
                other => {
                    let message = format!(
                        "{} cannot be compared: write a function on the left",
                        other.describe()
                    );
                    return Err(self.error(left_at, &message));
                }
            };
            let constant = match right {
                Term::Constant(constant) => constant,
                other => {
                    let message = format!("expected a constant, got {}", other.describe());
                    return Err(self.error(right_at, &message));
                }
            };
            let condition =
                V::compare(value, comparison, constant).map_err(|mismatch| match mismatch {
                    Mismatch::Sign(message) => self.error(at, message),
                    Mismatch::Constant(wanted, got) => {
                        let message = format!("expected {wanted}, got {}", got.describe());
                        self.error(right_at, &message)
                    }
                })?;
            left = Term::Expression(Expression::Is(condition));
            left_at = at;
        }
    }

    fn comparison_sign(&mut self) -> Option<Comparison> {
        Comparison::SIGNS
            .into_iter()
            .find_map(|(sign, comparison)| self.take(sign).then_some(comparison))
    }

    fn operand<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        let at = self.skip();
        match self.rest().chars().next() {
            None => Err(self.error(at, "something is missing here")),
            Some('(') => self.parenthesis::<V>(),
            Some(c) if c.is_alphabetic() || c == '_' => self.function::<V>(),
            Some(_) => self.constant().map(Term::Constant),
        }
    }

    fn parenthesis<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        let at = self.at;
        if self.depth == DEEPEST {
            return Err(self.error(at, "too many parentheses in each other"));
        }
        self.depth += 1;
        self.take("(");
        let term = self.any::<V>()?;
        self.depth -= 1;
        if self.take(")") { Ok(term) } else { Err(self.error(at, "this is not closed")) }
    }

    fn constant(&mut self) -> Result<Constant, String> {
        let at = self.skip();
        match self.rest().chars().next() {
            None => Err(self.error(at, "something is missing here")),
            Some('"' | '`') => self.quoted(),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some('!') => Err(self.error(at, "`!` is not supported: use `!=`")),
            Some(c) => Err(self.error(at, &format!("{c:?} is not expected here"))),
        }
    }

    fn quoted(&mut self) -> Result<Constant, String> {
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
                    return Ok(Constant::Text(text));
                }
                '"' if !raw => {
                    self.at += offset + 1;
                    return Ok(Constant::Text(text));
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

    fn number(&mut self) -> Result<Constant, String> {
        let at = self.at;
        let mut before = ' ';
        let rest = self.rest();
        let end = rest
            .find(|c: char| {
                let exponent = matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
                before = c;
                !exponent && !c.is_alphanumeric() && !matches!(c, '.' | '_')
            })
            .unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        self.at += end;
        let constant = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            digits.parse().ok().map(Constant::Integer)
        } else {
            // Rust also reads words such as `1inf`, which no digit begins in Go.
            let plain = digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
            let value = digits.parse().ok().filter(|value: &f64| plain && value.is_finite());
            value.map(Constant::Float)
        };
        constant.ok_or_else(|| self.error(at, &format!("`{digits}` is not a number")))
    }

    fn function<V: Vocabulary>(&mut self) -> Result<Term<V>, String> {
        let at = self.at;
        let name = word(self.rest());
        let unknown = format!("unknown function `{name}` (write {})", V::FUNCTIONS);
        if V::call(name, &[]).is_none() {
            return Err(self.error(at, &unknown));
        }
        self.at += name.len();
        if !self.take("(") {
            return Err(self.error(at, &format!("a call of `{name}` is written with parentheses")));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() && !self.take(",") {
                return Err(self.error(at, "this call is not closed"));
            }
            arguments.push(self.constant()?);
        }
        match V::call(name, &arguments) {
            None => Err(self.error(at, &unknown)),
            Some(Err(written)) => {
                Err(self.error(at, &format!("a call of `{name}` is written `{written}`")))
            }
            Some(Ok(Called::Condition(condition))) => {
                Ok(Term::Expression(Expression::Is(condition)))
            }
            Some(Ok(Called::Value(value))) => Ok(Term::Value(value)),
        }
    }
}

/// The word, or at least the character, at the beginning of `text`.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let end = if end == 0 { text.chars().next().map_or(0, char::len_utf8) } else { end };
    text.get(..end).unwrap_or_default()
}
