//! A rule: when a member needs a defragmentation, as an expression that its owner writes.
//!
//! The language is CEL, the variables are etcd-defrag's, and so is the arithmetic: every number is a double, so that
//! `dbSize > dbQuota*80/100`, `dbQuotaUsage > 0.8` and `dbSizeFree/dbSize > 0.45` mean what they say. (In CEL itself
//! `1/2` is 0 and `dbSize * 0.8` is an error.) For that, integers are converted to doubles when the rule is parsed, and
//! `%` to a function; anything but arithmetic, comparisons and logic over these variables is rejected at that time,
//! with its position, rather than when an alert fires.

use std::{fmt, sync::Arc};

use cel::{
    Context, Env, IdedExpr, Program, Value,
    common::ast::{CallExpr, Expr, LiteralValue, SourceInfo, operators},
};
use serde::Deserialize;
use thiserror::Error;

use super::{cluster::Status, reason::Reason};

/// The variables of a rule, with their meaning. Sizes are in bytes.
pub const VARIABLES: [(&str, &str); 5] = [
    ("dbSize", "size of the database file"),
    ("dbSizeInUse", "the part of it that is in use"),
    ("dbSizeFree", "dbSize - dbSizeInUse"),
    ("dbQuota", "the backend quota"),
    ("dbQuotaUsage", "dbSize / dbQuota"),
];

/// A longer rule is a program, and the parser recurses.
const MAX_LENGTH_BYTES: usize = 1_000;
/// Nesting of brackets. The parser needs some 100 KiB of stack for each level.
const MAX_DEPTH: usize = 8;
/// Number of opening brackets. If they make no sense, the parser nests as deep as there are brackets.
const MAX_BRACKETS: usize = 12;
/// Number of characters of operators: a sum is parsed as deep as it is long.
const MAX_OPERATORS: usize = 30;
/// CEL's doubles have no `%`; this name cannot be written in a rule.
const REMAINDER: &str = "@remainder";

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {what}")]
pub struct RuleError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there, and what to write instead.
    pub what: String,
}

/// A rule that was parsed and checked.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Rule {
    text: String,
    expression: Arc<IdedExpr>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The nesting depth of the brackets. A bracket that closes one of another kind is an error: to the parser it closes
/// nothing, so that what follows would be deeper than it looks.
fn deepest_bracket(text: &str) -> Result<usize, RuleError> {
    let (mut open, mut deepest) = (Vec::new(), 0);
    if text.matches(['(', '[', '{']).count() > MAX_BRACKETS {
        return Err(RuleError { line: 1, column: 1, what: format!("the rule has more than {MAX_BRACKETS} brackets") });
    }
    let (mut line, mut column) = (1, 0);
    for c in text.chars() {
        column += 1;
        match c {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(c) => {
                return Err(RuleError {
                    line,
                    column,
                    what: format!("the bracket {c} has no matching opening bracket"),
                });
            }
            '\n' => (line, column) = (line + 1, 0),
            _ => {}
        }
        deepest = deepest.max(open.len());
    }
    Ok(deepest)
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        Self::parse(&text)
    }
}

impl Rule {
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let start = |what: String| RuleError { line: 1, column: 1, what };
        if text.trim().is_empty() {
            return Err(start("the rule is empty; remove it to use the thresholds".to_owned()));
        }
        if text.len() > MAX_LENGTH_BYTES {
            return Err(start(format!("the rule is longer than {MAX_LENGTH_BYTES} bytes")));
        }
        let deepest = deepest_bracket(text)?;
        // A conditional counts as much as ten other operators.
        let weight = |c: char| if c == '?' { 10 } else { usize::from("+-*/%!<>=&|".contains(c)) };
        if text.chars().map(weight).sum::<usize>() > MAX_OPERATORS {
            return Err(start(format!("the rule has more than {MAX_OPERATORS} operator characters")));
        }
        if deepest > MAX_DEPTH {
            return Err(start(format!("the rule has more than {MAX_DEPTH} nested brackets")));
        }
        let program = Program::compile(text).map_err(|errors| match errors.errors.first() {
            Some(error) => {
                let from_one = |value: isize| usize::try_from(value).unwrap_or(1).max(1);
                RuleError { line: from_one(error.pos.0), column: from_one(error.pos.1), what: error.msg.clone() }
            }
            None => start("it is not an expression".to_owned()),
        })?;
        let mut expression = program.expression().clone();
        let reader = Reader { source: program.source_info() };
        let kind = reader.read(&mut expression)?;
        if kind != Kind::Truth {
            let what = "the rule is a number, but must be true or false: compare it with something";
            return Err(start(what.to_owned()));
        }
        Ok(Self { text: text.to_owned(), expression: Arc::new(expression) })
    }

    /// Whether a member needs a defragmentation. A rule that cannot be evaluated is a reason not to act.
    pub fn holds(&self, status: &Status) -> Result<(), Reason> {
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        let failed = |detail: String| Reason::RuleFailed { rule: self.text.clone(), detail };
        context
            .add_function(REMAINDER, |a: f64, b: f64| a % b)
            .map_err(|error| failed(format!("this defragd cannot compute remainders: {error}")))?;
        // An unknown quota is left out: what depends on it is undecided, and `a || b` is still true if one of them is
        // known to be.
        for (name, value) in values(status) {
            if let Some(value) = value {
                context.add_variable_from_value(name, value);
            }
        }
        match context.resolve(&self.expression) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(Value::Bool(false)) => Err(Reason::RuleNotMet {
                rule: self.text.clone(),
                db_size: status.db_size,
                db_size_in_use: status.db_size_in_use,
                quota: status.quota,
            }),
            Ok(other) => Err(failed(format!("its result is {other:?}, but must be true or false"))),
            Err(error) if status.quota_usage_ratio().is_none() && self.text.contains("dbQuota") => {
                Err(failed(format!("the member's quota is unknown ({error})")))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^52 bytes")]
fn values(status: &Status) -> [(&'static str, Option<f64>); 5] {
    let quota = status.quota.filter(|quota| quota.0 > 0);
    [
        ("dbSize", Some(status.db_size.0 as f64)),
        ("dbSizeInUse", Some(status.db_size_in_use.0 as f64)),
        ("dbSizeFree", Some(status.reclaimable().0 as f64)),
        ("dbQuota", quota.map(|quota| quota.0 as f64)),
        ("dbQuotaUsage", status.quota_usage_ratio()),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
enum Kind {
    #[strum(to_string = "a number")]
    Number,
    #[strum(to_string = "true or false")]
    Truth,
}

/// Checks an expression and rewrites its numbers.
struct Reader<'a> {
    source: &'a SourceInfo,
}

impl Reader<'_> {
    fn error(&self, id: u64, what: impl Into<String>) -> RuleError {
        let offset = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        // The offsets count characters.
        let before: String = self.source.source.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        RuleError { line, column, what: what.into() }
    }

    fn read(&self, node: &mut IdedExpr) -> Result<Kind, RuleError> {
        let id = node.id;
        match &mut node.expr {
            Expr::Literal(literal) => self.literal(id, literal),
            Expr::Ident(name) => {
                if VARIABLES.iter().any(|(known, _)| known == name) {
                    return Ok(Kind::Number);
                }
                let known = VARIABLES.map(|(known, _)| known).join(", ");
                Err(self.error(id, format!("there is no variable {name}; use {known}")))
            }
            Expr::Call(call) => self.call(id, call),
            _ => Err(self.error(id, "a rule may only have numbers, variables, arithmetic, comparisons and logic")),
        }
    }

    fn literal(&self, id: u64, literal: &mut LiteralValue) -> Result<Kind, RuleError> {
        #[expect(clippy::cast_precision_loss, reason = "sizes in bytes are exact below 2^52")]
        let number = match literal {
            LiteralValue::Boolean(_) => return Ok(Kind::Truth),
            LiteralValue::Double(value) => *value.inner(),
            LiteralValue::Int(value) => *value.inner() as f64,
            LiteralValue::UInt(value) => *value.inner() as f64,
            _ => return Err(self.error(id, "the only constants in a rule are numbers, true and false")),
        };
        *literal = LiteralValue::Double(number.into());
        Ok(Kind::Number)
    }

    fn call(&self, id: u64, call: &mut CallExpr) -> Result<Kind, RuleError> {
        use Kind::{Number, Truth};
        let (wanted, gives) = match call.func_name.as_str() {
            operators::CONDITIONAL => return self.choice(id, call),
            operators::EQUALS | operators::NOT_EQUALS => return self.equality(id, call),
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => (Truth, Truth),
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                (Number, Truth)
            }
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE
            | "double" => (Number, Number),
            other => {
                let what =
                    format!("{other} is not supported in rules: use + - * / % < <= > >= == != && || ! ?: and brackets");
                return Err(self.error(id, what));
            }
        };
        if call.target.is_some() {
            return Err(self.error(id, "a rule cannot call a method of a value"));
        }
        for argument in &mut call.args {
            self.expect(argument, wanted)?;
        }
        if call.func_name == operators::MODULO {
            REMAINDER.clone_into(&mut call.func_name);
        }
        Ok(gives)
    }

    fn expect(&self, node: &mut IdedExpr, wanted: Kind) -> Result<(), RuleError> {
        let found = self.read(node)?;
        if found == wanted {
            return Ok(());
        }
        Err(self.error(node.id, format!("this is {found}, but must be {wanted}")))
    }

    fn equality(&self, id: u64, call: &mut CallExpr) -> Result<Kind, RuleError> {
        let [left, right] = call.args.as_mut_slice() else { return Err(self.error(id, "needs two sides")) };
        let kind = self.read(left)?;
        self.expect(right, kind)?;
        Ok(Kind::Truth)
    }

    fn choice(&self, id: u64, call: &mut CallExpr) -> Result<Kind, RuleError> {
        let [condition, yes, no] = call.args.as_mut_slice() else { return Err(self.error(id, "needs three parts")) };
        self.expect(condition, Kind::Truth)?;
        let kind = self.read(yes)?;
        self.expect(no, kind)?;
        Ok(kind)
    }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
