//! Initializers that are no parameters: numbers, shapes and tables.

use std::hash::{DefaultHasher, Hash, Hasher};

use burn::tensor::DType;
use burn_ir::ScalarIr;

use crate::graph::{Constant, Element, Values};

use super::{Lower, Unsupported, element, scalar_value};

impl Lower<'_> {
    /// An initializer that is no parameter; one with the same elements is written once.
    pub(super) fn constant(&mut self, wish: &str, dims: Vec<usize>, values: Values) -> String {
        let constant = Constant { dims, values };
        let key = key(&constant);
        let alike = self.constants.get(&key).into_iter().flatten();
        let mut same = alike.filter(|name| self.graph.initializers[*name] == constant);
        if let Some(name) = same.next() {
            return name.clone();
        }
        let name = self.unique(wish);
        self.graph.initializers.insert(name.clone(), constant);
        self.constants.entry(key).or_default().push(name.clone());
        name
    }

    /// A number as a constant of the type `dtype`.
    pub(super) fn number(&mut self, number: f64, dtype: DType) -> Result<String, Unsupported> {
        let values = match element(dtype)? {
            Element::Float => Values::Float(vec![number as f32]),
            Element::Int64 => Values::Int64(vec![number as i64]),
            Element::Bool => Values::Bool(vec![number != 0.0]),
        };
        Ok(self.constant(&format!("number_{number}"), Vec::new(), values))
    }

    /// A scalar of an operation as a constant of the type `dtype`.
    pub(super) fn scalar(&mut self, scalar: ScalarIr, dtype: DType) -> Result<String, Unsupported> {
        self.number(scalar_value(scalar), dtype)
    }

    /// Whole numbers as a constant of one dimension.
    pub(super) fn ints(&mut self, values: impl IntoIterator<Item = i64>) -> String {
        let values: Vec<i64> = values.into_iter().collect();
        let text: Vec<String> = values.iter().map(ToString::to_string).collect();
        let name = format!("ints_{}", text.join("_"));
        self.constant(&name, vec![values.len()], Values::Int64(values))
    }
}

/// A number that is the same for equal constants.
fn key(constant: &Constant) -> u64 {
    let mut hasher = DefaultHasher::new();
    constant.dims.hash(&mut hasher);
    match &constant.values {
        Values::Float(values) => values.iter().for_each(|x| x.to_bits().hash(&mut hasher)),
        Values::Int64(values) => values.hash(&mut hasher),
        Values::Int32(values) => values.hash(&mut hasher),
        Values::Int8(values) | Values::Int4(values) => values.hash(&mut hasher),
        Values::Uint8(values) => values.hash(&mut hasher),
        Values::Bool(values) => values.hash(&mut hasher),
    }
    hasher.finish()
}
