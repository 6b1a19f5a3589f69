//! Rule text to tree: a Go expression of `!`, `&&`, `||`, parentheses and matcher calls.
//!
//! Negation is pushed down to the matchers while reading (De Morgan), as Traefik does, so the tree
//! has no node for it. Recursion is bounded by `MAX_DEPTH`, whatever the text.

use std::ops::Range;

use super::lexer::{Kind, Lexer, Token};
use super::matcher::{self, Argument};
use super::tree::{Group, Node, Span, Test};
use super::{MAX_LENGTH, RuleError, Syntax, v2};

/// How deeply parentheses may nest.
const MAX_DEPTH: usize = 100;

/// Reads a whole rule.
pub(super) fn parse(text: &str, syntax: Syntax) -> Result<Node, RuleError> {
    if text.len() > MAX_LENGTH {
        let message = format!("the rule is longer than {MAX_LENGTH} bytes");
        return Err(RuleError::new(message, 0..0));
    }
    // Go refuses these two everywhere, even in strings and comments.
    for (character, message) in
        [('\0', "illegal character NUL"), ('\u{feff}', "illegal byte order mark")]
    {
        if let Some((at, found)) =
            text.match_indices(character).find(|(at, _)| *at > 0 || character == '\0')
        {
            return Err(RuleError::new(message, at..at + found.len()));
        }
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser { text, syntax, lexer, token, last_end: 0 };
    let node = parser.any(false, 0)?;
    let after_line_break = parser.take(&Kind::NewLine)?;
    match parser.token.kind {
        Kind::End => Ok(node),
        Kind::And | Kind::Or if after_line_break => {
            let found = parser.found();
            Err(parser.error(format!(
                "expected 'EOF', found {found}: a line may break after an operator, not before it"
            )))
        }
        Kind::Other => Err(parser.unsupported()),
        _ => {
            let found = parser.found();
            Err(parser.error(format!("expected '&&', '||' or 'EOF', found {found}")))
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    syntax: Syntax,
    lexer: Lexer<'t>,
    token: Token<'t>,
    /// Where the token before `token` ended.
    last_end: usize,
}

impl<'t> Parser<'t> {
    fn advance(&mut self) -> Result<Token<'t>, RuleError> {
        let next = self.lexer.next()?;
        self.last_end = self.token.end;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn take(&mut self, kind: &Kind<'_>) -> Result<bool, RuleError> {
        let taken = self.token.kind == *kind;
        if taken {
            self.advance()?;
        }
        Ok(taken)
    }

    fn any(&mut self, negated: bool, depth: usize) -> Result<Node, RuleError> {
        let start = self.token.start;
        let first = self.all(negated, depth)?;
        if self.token.kind != Kind::Or {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.take(&Kind::Or)? {
            nodes.push(self.all(negated, depth)?);
        }
        Ok(group(negated, nodes, negated, start..self.last_end))
    }

    fn all(&mut self, negated: bool, depth: usize) -> Result<Node, RuleError> {
        let start = self.token.start;
        let first = self.operand(negated, depth)?;
        if self.token.kind != Kind::And {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.take(&Kind::And)? {
            nodes.push(self.operand(negated, depth)?);
        }
        Ok(group(!negated, nodes, negated, start..self.last_end))
    }

    fn operand(&mut self, mut negated: bool, depth: usize) -> Result<Node, RuleError> {
        while self.take(&Kind::Not)? {
            negated = !negated;
        }
        match self.token.kind {
            Kind::Open if depth == MAX_DEPTH => {
                Err(self.error(format!("parentheses nest deeper than {MAX_DEPTH} levels")))
            }
            Kind::Open => {
                self.advance()?;
                let node = self.any(negated, depth + 1)?;
                if self.take(&Kind::Close)? {
                    return Ok(node);
                }
                if self.token.kind == Kind::Other {
                    return Err(self.unsupported());
                }
                let found = self.found();
                Err(self.error(format!("expected ')', found {found}")))
            }
            Kind::Name(name) => self.call(name, negated),
            Kind::Text(_) | Kind::Number => {
                let found = self.found();
                Err(self.error(format!(
                    "expected a matcher such as Host(`example.com`), found {found}"
                )))
            }
            _ => {
                let found = self.found();
                Err(self.error(format!("expected operand, found {found}")))
            }
        }
    }

    fn call(&mut self, name: &str, negated: bool) -> Result<Node, RuleError> {
        let call = self.advance()?;
        if self.token.kind != Kind::Open {
            let message =
                format!("{name} is not defined: a matcher is written Host(`example.com`)");
            return Err(RuleError::new(message, call.start..call.end));
        }
        let unknown = |message| RuleError::new(message, call.start..call.end);
        if self.syntax == Syntax::V2 {
            let kind = v2::named(name).map_err(unknown)?;
            self.advance()?;
            let arguments = self.arguments(name)?;
            return v2::build(kind, &arguments, call.start..self.last_end, negated);
        }
        let kind = matcher::named(name).map_err(unknown)?;
        self.advance()?;
        let arguments = self.arguments(name)?;
        let range = call.start..self.last_end;
        let matcher = matcher::build(kind, arguments, range.clone())?;
        Ok(Node::Test(Test { matcher, span: Span::new(range), negated }))
    }

    /// Reads the arguments of a call and its closing parenthesis.
    fn arguments(&mut self, name: &str) -> Result<Vec<Argument>, RuleError> {
        let mut arguments = Vec::new();
        loop {
            if self.take(&Kind::Close)? {
                return Ok(arguments);
            }
            match self.token.kind {
                Kind::Text(_) => arguments.push(self.argument()?),
                Kind::End => return Err(self.error("expected ')', found 'EOF'")),
                _ => {
                    let found = self.found();
                    return Err(self.error(format!(
                        "the argument of {name} must be a string in `back quotes` or \"double quotes\", \
                         found {found}"
                    )));
                }
            }
            match self.token.kind {
                Kind::Comma => {
                    self.advance()?;
                }
                Kind::Close => {}
                Kind::End => return Err(self.error("expected ')', found 'EOF'")),
                Kind::NewLine => {
                    return Err(self.error("missing ',' before newline in argument list"));
                }
                Kind::Other | Kind::And | Kind::Or => return Err(self.unsupported()),
                _ => return Err(self.error("missing ',' in argument list")),
            }
        }
    }

    fn argument(&mut self) -> Result<Argument, RuleError> {
        let token = self.advance()?;
        let Kind::Text(value) = token.kind else {
            return Err(RuleError::new("expected a string", token.start..token.end));
        };
        // Between its quotes a literal without escapes is its value, byte for byte.
        let verbatim = self.text.get(token.start + 1..token.end - 1) == Some(&*value);
        Ok(Argument { value: value.into_owned(), range: token.start..token.end, verbatim })
    }

    /// The current token, for a message.
    fn found(&self) -> String {
        match self.token.kind {
            Kind::NewLine => "newline".to_owned(),
            Kind::End => "'EOF'".to_owned(),
            _ => {
                let text = self.text.get(self.token.start..self.token.end).unwrap_or_default();
                format!("'{text}'")
            }
        }
    }

    fn error(&self, message: impl Into<String>) -> RuleError {
        RuleError::new(message, self.token.start..self.token.end)
    }

    fn unsupported(&self) -> RuleError {
        let operator = self.text.get(self.token.start..self.token.end).unwrap_or_default();
        self.error(format!("{operator} is not supported"))
    }
}

/// Nodes joined by one operator, which stands under `negated`.
pub(super) fn group(all: bool, nodes: Vec<Node>, negated: bool, range: Range<usize>) -> Node {
    let group = Group { nodes: nodes.into(), span: Span::new(range), negated };
    if all { Node::All(group) } else { Node::Any(group) }
}
