//! Rules of the user for operations outside of Burn: kernels of a backend extension, and code in the
//! place of which a [`CustomOp`](crate::CustomOp) is recorded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use burn_ir::OperationIr;

use super::builtin;
use super::operation::{Operation, name};

/// Constant of a removed channel in an output, from those in the inputs; `None` where it is unknown.
pub(super) type Constant = Arc<dyn Fn(&[Option<f64>]) -> Option<f64> + Send + Sync>;

/// A dimension of a tensor of an operation: the tensor's position, and the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// A dimension of an input.
    Input(usize, usize),
    /// A dimension of an output.
    Output(usize, usize),
}

/// Rule of an operation: the way of channels from its inputs to its outputs.
///
/// A rule lists for each output dimension the input dimensions that its channels come from
/// ([`carry`](Self::carry)), and the dimensions that are summed over ([`contract`](Self::contract)).
/// Channels along an input dimension that it does not list must stay.
///
/// A channel can be removed when it is exactly zero wherever a contraction reads it. A rule therefore
/// maps the constants of a removed channel in the inputs to the constant in the output: a function of
/// one `Option<f64>` an input, `None` for anything else than a constant. [`all_zero`] and [`any_zero`] are the usual ones. With a constant that is not certain,
/// return `None`: the channel then stays.
///
/// ```
/// use burn_compress_graph::{Dim, OperationRule, all_zero, any_zero};
///
/// // y = swish(x), one operation.
/// let swish = OperationRule::elementwise(|x| Some(x[0]? / (1.0 + (-x[0]?).exp())))
///     .activation();
///
/// // A convolution of x [n, c, h, w] with a weight [o, c, k, k] and a bias [o].
/// let conv = OperationRule::new()
///     .carry([(0, 0)], (0, 0), |_| None)
///     .carry([(1, 0), (2, 0)], (0, 1), all_zero)
///     .contract((0, 1), (1, 1))
///     .macs([
///         Dim::Output(0, 0), Dim::Output(0, 1), Dim::Output(0, 2), Dim::Output(0, 3),
///         Dim::Input(1, 1), Dim::Input(1, 2), Dim::Input(1, 3),
///     ]);
/// ```
#[derive(Clone, Default)]
pub struct OperationRule {
    pub(super) elementwise: Option<Constant>,
    pub(super) carried: Vec<Carried>,
    pub(super) contracted: Vec<[(usize, usize); 2]>,
    pub(super) macs: Vec<Dim>,
    pub(super) activation: bool,
}

/// Input dimensions whose channels are those of an output dimension.
#[derive(Clone)]
pub(super) struct Carried {
    pub from: Vec<(usize, usize)>,
    pub to: (usize, usize),
    pub constant: Constant,
}

impl OperationRule {
    /// The rule of an operation that only protects: all channels that it reads must stay.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rule of an operation that works element by element, with one output.
    ///
    /// Inputs of size 1 along a dimension are repeated there. `constant` gives the output's constant
    /// from one of each input.
    pub fn elementwise(
        constant: impl Fn(&[Option<f64>]) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            elementwise: Some(Arc::new(constant)),
            ..Self::default()
        }
    }

    /// The channels along the output dimension `to` are those along each of the input dimensions
    /// `from`, index by index; positions are `(tensor, dimension)`.
    ///
    /// `constant` gives the output's constant from one of each of `from`, in their order.
    pub fn carry(
        mut self,
        from: impl Into<Vec<(usize, usize)>>,
        to: (usize, usize),
        constant: impl Fn(&[Option<f64>]) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.carried.push(Carried {
            from: from.into(),
            to,
            constant: Arc::new(constant),
        });
        self
    }

    /// The operation sums products over two input dimensions, index by index, as a matrix product
    /// does over its inner dimension; positions are `(tensor, dimension)`.
    pub fn contract(mut self, a: (usize, usize), b: (usize, usize)) -> Self {
        self.contracted.push([a, b]);
        self
    }

    /// The number of multiply-accumulates, the product of the sizes of `dims`; none are counted
    /// without.
    pub fn macs(mut self, dims: impl Into<Vec<Dim>>) -> Self {
        self.macs = dims.into();
        self
    }

    /// Counts the operation as an activation function, which criteria on activations look for behind
    /// a layer.
    pub fn activation(mut self) -> Self {
        self.activation = true;
        self
    }
}

impl fmt::Debug for OperationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carried = self.carried.iter();
        let carried: Vec<_> = carried.map(|carried| (&carried.from, carried.to)).collect();
        f.debug_struct("OperationRule")
            .field("elementwise", &self.elementwise.is_some())
            .field("carried", &carried)
            .field("contracted", &self.contracted)
            .field("macs", &self.macs)
            .field("activation", &self.activation)
            .finish()
    }
}

/// Zero where all are zero: a sum, or a weight with its bias.
pub fn all_zero(constants: &[Option<f64>]) -> Option<f64> {
    constants.iter().all(|x| *x == Some(0.0)).then_some(0.0)
}

/// Zero where one is zero: a product of finite numbers.
pub fn any_zero(constants: &[Option<f64>]) -> Option<f64> {
    constants.contains(&Some(0.0)).then_some(0.0)
}

type MakeRule = dyn Fn(&Operation) -> OperationRule + Send + Sync;

/// The rules of the user, by the name of the operation.
#[derive(Clone, Default)]
pub(super) struct Rules(BTreeMap<String, Arc<MakeRule>>);

impl Rules {
    pub fn insert(
        &mut self,
        name: String,
        rule: impl Fn(&Operation) -> OperationRule + Send + Sync + 'static,
    ) {
        self.0.insert(name, Arc::new(rule));
    }

    /// The rule of an operation, if one was given.
    pub fn get(&self, op: &OperationIr) -> Option<OperationRule> {
        let is_builtin = matches!(op, OperationIr::Custom(op) if builtin::is_known(&op.id));
        if self.0.is_empty() || is_builtin {
            return None;
        }
        let make = self.0.get(&name(op))?;
        Some(make(&Operation::of(op)))
    }

    /// Whether the rules are the same objects.
    pub fn same(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        self.0.len() == other.0.len()
            && pairs.all(|((a, rule), (b, own))| a == b && Arc::ptr_eq(rule, own))
    }

    /// The operations that a rule was given for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
