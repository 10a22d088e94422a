//! Tensors of a forward pass that can be observed at wrapped layers.

use burn::tensor::{Tensor, activation};
use burn_ir::{
    ActivationOperationIr as Activation, BaseOperationIr as Base, FloatOperationIr as Float,
    NumericOperationIr as Numeric, OperationIr,
};

use super::operation::number;
use crate::target::TargetId;

/// A tensor of a forward pass: one that passes the input or output of a wrapped layer, or a
/// function of such tensors, element by element.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// An input or output.
    Port {
        /// The input or output.
        target: TargetId,
        /// Number of the call in a forward pass, from 0.
        call: usize,
        /// The number of its calls in a forward pass.
        calls: usize,
    },
    /// A function of tensors of one shape.
    Function(Function, Vec<Observed>),
}

impl Observed {
    /// The inputs and outputs that it is made of, each with its number of calls.
    pub fn ports(&self) -> Vec<(&TargetId, usize)> {
        match self {
            Self::Port { target, calls, .. } => vec![(target, *calls)],
            Self::Function(_, inputs) => inputs.iter().flat_map(Self::ports).collect(),
        }
    }

    /// The tensor, where `port` gives the tensor that passes an input or output at a call; `None`
    /// where that is not known.
    ///
    /// Tensors are given and returned as their elements in row-major order and their shape.
    pub fn value<T>(&self, port: &impl Fn(&TargetId, usize) -> Option<T>) -> Option<T>
    where
        T: Into<(Tensor<1>, Vec<usize>)> + From<(Tensor<1>, Vec<usize>)>,
    {
        match self {
            Self::Port { target, call, .. } => port(target, *call),
            Self::Function(function, inputs) => {
                let inputs = inputs.iter().map(|input| Some(input.value(port)?.into()));
                let inputs: Option<Vec<(Tensor<1>, Vec<usize>)>> = inputs.collect();
                let (values, shapes): (Vec<_>, Vec<_>) = inputs?.into_iter().unzip();
                let shape = shapes.first()?.clone();
                if shapes.iter().any(|other| *other != shape) {
                    return None;
                }
                Some(T::from((function.apply(values)?, shape)))
            }
        }
    }
}

/// Deviation of an operation on single elements from a linear function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bend {
    /// A multiple, or a sum of such.
    None,
    /// A function that is no activation by itself, as a square.
    Other,
    /// A part of an activation.
    Activation,
}

/// The bend of an operation that works element by element; `None` for any other.
pub(super) fn bend(op: &OperationIr) -> Option<Bend> {
    let bend = match op {
        OperationIr::Activation(
            Activation::Relu(_)
            | Activation::LeakyRelu(_)
            | Activation::Gelu(_)
            | Activation::Sigmoid(_)
            | Activation::HardSigmoid(_)
            | Activation::LogSigmoid(_),
        ) => Bend::Activation,
        OperationIr::NumericFloat(_, numeric) | OperationIr::NumericInt(_, numeric) => {
            match numeric {
                Numeric::AddScalar(_)
                | Numeric::SubScalar(_)
                | Numeric::MulScalar(_)
                | Numeric::DivScalar(_)
                | Numeric::Neg(_)
                | Numeric::Add(_)
                | Numeric::Sub(_) => Bend::None,
                Numeric::Clamp(_) | Numeric::ClampMin(_) | Numeric::ClampMax(_) => Bend::Activation,
                Numeric::Mul(_)
                | Numeric::Div(_)
                | Numeric::Rem(_)
                | Numeric::RemScalar(_)
                | Numeric::Powi(_)
                | Numeric::PowiScalar(_)
                | Numeric::Abs(_)
                | Numeric::Sign(_)
                | Numeric::Greater(_)
                | Numeric::GreaterEqual(_)
                | Numeric::Lower(_)
                | Numeric::LowerEqual(_)
                | Numeric::GreaterElem(_)
                | Numeric::GreaterEqualElem(_)
                | Numeric::LowerElem(_)
                | Numeric::LowerEqualElem(_) => Bend::Other,
                _ => return None,
            }
        }
        OperationIr::Float(_, float) => match float {
            Float::Tanh(_) | Float::Exp(_) | Float::Erf(_) | Float::ArcTan(_) => Bend::Activation,
            Float::Log(_)
            | Float::Log1p(_)
            | Float::Sqrt(_)
            | Float::Recip(_)
            | Float::PowfScalar(_)
            | Float::Powf(_)
            | Float::Sin(_)
            | Float::Cos(_) => Bend::Other,
            _ => return None,
        },
        OperationIr::BaseFloat(base) => match base {
            Base::Cast(_) => Bend::None,
            Base::MaskWhere(_) | Base::MaskFill(_) => Bend::Activation,
            Base::Equal(_) | Base::NotEqual(_) | Base::EqualElem(_) | Base::NotEqualElem(_) => {
                Bend::Other
            }
            _ => return None,
        },
        OperationIr::Bool(_) => Bend::Other,
        _ => return None,
    };
    Some(bend)
}

/// An operation on single elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// `max(x, 0)`.
    Relu,
    /// `x`, times a slope below 0.
    LeakyRelu(f64),
    /// The Gaussian error linear unit.
    Gelu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `max(0, min(1, alpha x + beta))`.
    HardSigmoid(f64, f64),
    /// The logarithm of the sigmoid.
    LogSigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// Between two bounds.
    Clamp(f64, f64),
    /// Not below a bound.
    ClampMin(f64),
    /// Not above a bound.
    ClampMax(f64),
    /// `x + number`.
    Shift(f64),
    /// `x * number`.
    Scale(f64),
    /// `x` to the power of a number.
    Power(f64),
    /// `x + y`.
    Add,
    /// `x - y`.
    Sub,
    /// `x * y`.
    Mul,
    /// `x / y`.
    Div,
}

impl Function {
    /// The function that an operation computes; `None` where it is none of these.
    pub(super) fn of(op: &OperationIr) -> Option<Self> {
        Some(match op {
            OperationIr::Activation(activation) => match activation {
                Activation::Relu(_) => Self::Relu,
                Activation::LeakyRelu(op) => Self::LeakyRelu(number(op.rhs)),
                Activation::Gelu(_) => Self::Gelu,
                Activation::Sigmoid(_) => Self::Sigmoid,
                Activation::HardSigmoid(op) => Self::HardSigmoid(number(op.alpha), number(op.beta)),
                Activation::LogSigmoid(_) => Self::LogSigmoid,
                _ => return None,
            },
            OperationIr::NumericFloat(_, numeric) => match numeric {
                Numeric::Clamp(op) => Self::Clamp(number(op.min), number(op.max)),
                Numeric::ClampMin(op) => Self::ClampMin(number(op.rhs)),
                Numeric::ClampMax(op) => Self::ClampMax(number(op.rhs)),
                Numeric::AddScalar(op) => Self::Shift(number(op.rhs)),
                Numeric::SubScalar(op) => Self::Shift(-number(op.rhs)),
                Numeric::MulScalar(op) => Self::Scale(number(op.rhs)),
                Numeric::DivScalar(op) => Self::Scale(1.0 / number(op.rhs)),
                Numeric::PowiScalar(op) => Self::Power(number(op.rhs)),
                Numeric::Neg(_) => Self::Scale(-1.0),
                Numeric::Add(_) => Self::Add,
                Numeric::Sub(_) => Self::Sub,
                Numeric::Mul(_) => Self::Mul,
                Numeric::Div(_) => Self::Div,
                _ => return None,
            },
            OperationIr::Float(_, float) => match float {
                Float::Tanh(_) => Self::Tanh,
                Float::PowfScalar(op) => Self::Power(number(op.rhs)),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The function of one or two tensors; `None` of another number.
    fn apply(self, inputs: Vec<Tensor<1>>) -> Option<Tensor<1>> {
        let mut inputs = inputs.into_iter();
        let x = inputs.next()?;
        let y = inputs.next();
        Some(match (self, y) {
            (Self::Add, Some(y)) => x + y,
            (Self::Sub, Some(y)) => x - y,
            (Self::Mul, Some(y)) => x * y,
            (Self::Div, Some(y)) => x / y,
            // An operation that reads one tensor twice may list it once.
            (Self::Add, None) => x.clone() + x,
            (Self::Sub, None) => x.clone() - x,
            (Self::Mul, None) => x.clone() * x,
            (Self::Div, None) => x.clone() / x,
            (Self::Relu, _) => activation::relu(x),
            (Self::LeakyRelu(slope), _) => activation::leaky_relu(x, slope),
            (Self::Gelu, _) => activation::gelu(x),
            (Self::Sigmoid, _) => activation::sigmoid(x),
            (Self::HardSigmoid(alpha, beta), _) => activation::hard_sigmoid(x, alpha, beta),
            (Self::LogSigmoid, _) => activation::log_sigmoid(x),
            (Self::Tanh, _) => x.tanh(),
            (Self::Clamp(min, max), _) => x.clamp(min, max),
            (Self::ClampMin(min), _) => x.clamp_min(min),
            (Self::ClampMax(max), _) => x.clamp_max(max),
            (Self::Shift(by), _) => x.add_scalar(by),
            (Self::Scale(by), _) => x.mul_scalar(by),
            (Self::Power(by), _) => x.powf_scalar(by),
        })
    }
}
