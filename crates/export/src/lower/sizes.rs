//! Sizes that are known when the graph runs, as tensors of whole numbers.

use crate::graph::Attribute;
use crate::trace::{Formula, Sizes, line};

use super::{Lower, Unsupported};

impl Lower<'_> {
    /// Remembers the dynamic dimensions of a tensor.
    pub(super) fn note_dims(&mut self, name: &str, dims: &[Sizes]) {
        for (dim, sizes) in dims.iter().enumerate() {
            if sizes.fixed().is_none() && !self.known.iter().any(|(known, ..)| known == sizes) {
                self.known.push((sizes.clone(), name.to_string(), dim));
            }
        }
    }

    /// The name of a dynamic size in the type of an input or output.
    pub(super) fn size_label(&self, sizes: &Sizes) -> String {
        let axes = &self.trace.axes;
        match Formula::of(sizes, axes) {
            Some(formula) => formula.label(axes),
            None => {
                let position = self.known.iter().position(|(known, ..)| known == sizes);
                format!("size_{}", position.unwrap_or(self.known.len()))
            }
        }
    }

    /// A size as a tensor of one whole number.
    pub(super) fn size(&mut self, sizes: &Sizes) -> Result<String, Unsupported> {
        if let Some(size) = sizes.fixed() {
            return Ok(self.ints([size as i64]));
        }
        if let Some(name) = self.computed.get(sizes) {
            return Ok(name.clone());
        }
        let name = self.compute_size(sizes)?;
        self.computed.insert(sizes.clone(), name.clone());
        Ok(name)
    }

    fn compute_size(&mut self, sizes: &Sizes) -> Result<String, Unsupported> {
        let exact = self.known.iter().find(|(known, ..)| known == sizes);
        if let Some((_, name, dim)) = exact {
            let (name, dim) = (name.clone(), *dim as i64);
            let ends = [
                ("start", Attribute::Int(dim)),
                ("end", Attribute::Int(dim + 1)),
            ];
            return Ok(self.step("Shape", [name], ends));
        }
        if let Some(formula) = Formula::of(sizes, &self.trace.axes) {
            let axes = formula
                .axes
                .iter()
                .map(|&at| self.trace.axes[at].sizes.clone());
            let factors: Vec<Sizes> = axes.collect();
            let mut product = self.size(&factors[0])?;
            for factor in &factors[1..] {
                let factor = self.size(factor)?;
                product = self.step("Mul", [product, factor], []);
            }
            return Ok(self.on_line(product, (formula.times, formula.over, formula.plus)));
        }
        let of_other = self
            .known
            .iter()
            .find_map(|(known, ..)| Some((known.clone(), line(sizes, known)?)));
        if let Some((known, line)) = of_other {
            let known = self.size(&known)?;
            return Ok(self.on_line(known, line));
        }
        let found: Vec<usize> = sizes.iter().collect();
        Err(Unsupported::new(format!(
            "it needs a size that follows from no dynamic dimension by a product or a sum (it was \
             {found:?} in the captures): export that dimension with a fixed size"
        )))
    }

    fn on_line(&mut self, x: String, (times, over, plus): (usize, usize, i64)) -> String {
        let mut size = x;
        for (operator, number, neutral) in [
            ("Mul", times as i64, 1),
            ("Div", over as i64, 1),
            ("Add", plus, 0),
        ] {
            if number != neutral {
                let number = self.ints([number]);
                size = self.step(operator, [size, number], []);
            }
        }
        size
    }

    /// A shape as a tensor of whole numbers.
    pub(super) fn shape(&mut self, dims: &[Sizes]) -> Result<String, Unsupported> {
        let parts = dims.iter().map(|sizes| match sizes.fixed() {
            Some(size) => Part::Number(size as i64),
            None => Part::Size(sizes.clone()),
        });
        self.vector(parts.collect())
    }

    /// Whole numbers, some of which are sizes.
    pub(super) fn vector(&mut self, parts: Vec<Part>) -> Result<String, Unsupported> {
        let mut pieces: Vec<String> = Vec::new();
        let mut numbers: Vec<i64> = Vec::new();
        for part in parts {
            match part {
                Part::Number(number) => numbers.push(number),
                Part::Size(sizes) => {
                    if !numbers.is_empty() {
                        pieces.push(self.ints(std::mem::take(&mut numbers)));
                    }
                    pieces.push(self.size(&sizes)?);
                }
            }
        }
        if pieces.is_empty() || !numbers.is_empty() {
            pieces.push(self.ints(numbers));
        }
        match &pieces[..] {
            [piece] => Ok(piece.clone()),
            _ => Ok(self.step("Concat", pieces, [("axis", Attribute::Int(0))])),
        }
    }
}

/// An entry of a vector of whole numbers.
pub(super) enum Part {
    Number(i64),
    Size(Sizes),
}
