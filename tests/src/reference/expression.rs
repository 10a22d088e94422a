//! The data flow of a network written as an expression, such as `fc(relu(conv(x)))`.
//!
//! ```text
//! program    = { name "=" sum ";" } sum
//! sum        = term { "+" term }
//! term       = name [ "(" sum { "," sum } ")" ]
//! ```
//!
//! A name that is called is one of the operations `relu`, `cat`, `mean_hw`, `flatten`, or a layer.

use super::case::{CaseError, OpSpec, Result};

const OPERATIONS: [&str; 4] = ["relu", "cat", "mean_hw", "flatten"];

/// Turns an expression into the list of operations that computes it from `x` into `y`.
///
/// # Errors
///
/// When the text is not an expression.
pub fn parse(text: &str) -> Result<Vec<OpSpec>> {
    let mut parser = Parser {
        text,
        rest: text,
        ops: Vec::new(),
    };
    loop {
        let before = parser.rest;
        if let Some(name) = parser.name()
            && parser.symbol('=')
        {
            let value = parser.sum()?;
            parser.rename(&value, name)?;
            if !parser.symbol(';') {
                return Err(parser.error("expected `;`"));
            }
            continue;
        }
        parser.rest = before;
        let value = parser.sum()?;
        parser.rename(&value, "y")?;
        return match parser.rest.trim().is_empty() {
            true => Ok(parser.ops),
            false => Err(parser.error("unexpected text")),
        };
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    ops: Vec<OpSpec>,
}

impl<'a> Parser<'a> {
    fn name(&mut self) -> Option<&'a str> {
        let trimmed = self.rest.trim_start();
        let end = trimmed
            .find(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_' && symbol != '.')
            .unwrap_or(trimmed.len());
        if end == 0 {
            return None;
        }
        let (name, rest) = trimmed.split_at(end);
        self.rest = rest;
        Some(name)
    }

    fn symbol(&mut self, symbol: char) -> bool {
        match self.rest.trim_start().strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Result<String> {
        let first = self.term()?;
        let mut terms = vec![first];
        while self.symbol('+') {
            terms.push(self.term()?);
        }
        match terms.len() {
            1 => Ok(terms.remove(0)),
            _ => Ok(self.emit("add", None, terms)),
        }
    }

    fn term(&mut self) -> Result<String> {
        let name = self.name().ok_or_else(|| self.error("expected a name"))?;
        if !self.symbol('(') {
            return Ok(name.to_owned());
        }
        let mut inputs = vec![self.sum()?];
        while self.symbol(',') {
            inputs.push(self.sum()?);
        }
        if !self.symbol(')') {
            return Err(self.error("expected `)`"));
        }
        Ok(match OPERATIONS.contains(&name) {
            true => self.emit(name, None, inputs),
            false => self.emit("layer", Some(name.to_owned()), inputs),
        })
    }

    fn emit(&mut self, op: &str, layer: Option<String>, inputs: Vec<String>) -> String {
        let output = format!("#{}", self.ops.len());
        self.ops.push(OpSpec {
            op: op.to_owned(),
            layer,
            inputs,
            output: output.clone(),
        });
        output
    }

    /// Gives the value that the last operation wrote another name.
    fn rename(&mut self, value: &str, name: &str) -> Result<()> {
        match self.ops.last_mut().filter(|op| op.output == value) {
            Some(op) => {
                op.output = name.to_owned();
                Ok(())
            }
            None => Err(self.error("the value is not computed by an operation")),
        }
    }

    fn error(&self, message: &str) -> CaseError {
        let at = self.text.len() - self.rest.len();
        CaseError::Failed(format!(
            "the expression `{}`, at {at}: {message}",
            self.text
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(op: &str, layer: Option<&str>, inputs: &[&str], output: &str) -> OpSpec {
        OpSpec {
            op: op.to_owned(),
            layer: layer.map(str::to_owned),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: output.to_owned(),
        }
    }

    #[test]
    fn nested_calls_become_operations_from_the_inside_out() {
        let ops = parse("fc(relu(conv1(x)))").unwrap();
        let expected = vec![
            op("layer", Some("conv1"), &["x"], "#0"),
            op("relu", None, &["#0"], "#1"),
            op("layer", Some("fc"), &["#1"], "y"),
        ];
        assert_eq!(ops, expected);
    }

    #[test]
    fn named_values_and_sums() {
        let ops = parse("h=a(x); h=b(h)+c(h); mean_hw(h)").unwrap();
        let expected = vec![
            op("layer", Some("a"), &["x"], "h"),
            op("layer", Some("b"), &["h"], "#1"),
            op("layer", Some("c"), &["h"], "#2"),
            op("add", None, &["#1", "#2"], "h"),
            op("mean_hw", None, &["h"], "y"),
        ];
        assert_eq!(ops, expected);
    }

    #[test]
    fn prose_is_refused() {
        assert!(parse("the forward is not needed").is_err());
        assert!(parse("fc(x").is_err());
    }
}
