//! One rule for every operation, one kind of operation a file.
//!
//! A rule describes the outputs of an operation from its inputs:
//!
//! - the indices that share a channel from here on;
//! - the channels that can no longer be removed;
//! - the value of a removed channel's elements.

mod activation;
mod attention;
mod channel_norm;
mod conv;
mod custom;
mod elementwise;
mod matmul;
mod meet;
mod norm;
mod recurrent;
mod reduce;
mod select;
mod shape;
mod spatial;

use burn_ir::{
    BaseOperationIr as Base, BoolOperationIr, CustomOpIr, FloatOperationIr, IntOperationIr,
    ModuleOperationIr as Module, NumericOperationIr as Numeric, OperationIr,
};

use super::GraphError;
use super::analysis::Analysis;
use super::builtin;
use super::operation::number;

/// Applies the rule of an operation.
pub(super) fn apply(a: &mut Analysis, op: &OperationIr) -> Result<(), GraphError> {
    match op {
        OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base) => {
            apply_base(a, base)
        }
        OperationIr::NumericFloat(_, numeric) | OperationIr::NumericInt(_, numeric) => {
            apply_numeric(a, numeric)
        }
        OperationIr::Float(_, float) => apply_float(a, op, float),
        OperationIr::Int(int) => apply_int(a, int),
        OperationIr::Bool(bool) => apply_bool(a, bool),
        OperationIr::Module(module) => apply_module(a, op, module),
        OperationIr::Activation(activation) => activation::apply(a, op, activation),
        // Initialized tensors are the parameters, inputs and constants.
        OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
        OperationIr::Custom(custom) if builtin::is_known(&custom.id) => apply_builtin(a, custom),
        OperationIr::Custom(_) | OperationIr::Distributed(_) => custom::apply(a, op),
    }
}

fn apply_builtin(a: &mut Analysis, op: &CustomOpIr) -> Result<(), GraphError> {
    match op.id.as_str() {
        builtin::LSTM | builtin::GRU => recurrent::apply(a, op),
        builtin::ATTENTION => attention::apply(a, op),
        _ => channel_norm::apply(a, op),
    }
}

fn apply_base(a: &mut Analysis, op: &Base) -> Result<(), GraphError> {
    match op {
        Base::Reshape(op) => shape::reshape(a, op),
        Base::SwapDims(op) => shape::swap_dims(a, op),
        Base::Permute(op) => shape::permute(a, &op.input, &op.axes, &op.out),
        Base::Flip(op) => shape::flip(a, op),
        Base::Expand(op) => shape::expand(a, op),
        Base::RepeatDim(op) => shape::repeat(a, op),
        Base::Cat(op) => shape::cat(a, op)?,
        Base::Unfold(op) => select::unfold(a, op),
        Base::Slice(op) => select::slice(a, op),
        Base::SliceAssign(op) => select::slice_assign(a, op),
        Base::Select(op) => select::select(a, op),
        Base::SelectAssign(op) => a.opaque([&op.tensor, &op.value], [&op.out]),
        Base::Gather(op) => a.opaque([&op.tensor, &op.indices], [&op.out]),
        Base::GatherNd(op) => a.opaque([&op.data, &op.indices], [&op.out]),
        Base::Scatter(op) => a.opaque([&op.tensor, &op.indices, &op.value], [&op.out]),
        Base::ScatterNd(op) => a.opaque([&op.data, &op.indices, &op.values], [&op.out]),
        Base::MaskWhere(op) => elementwise::mask_where(a, op)?,
        Base::MaskFill(op) => elementwise::mask_fill(a, op)?,
        Base::Equal(op) => elementwise::compare(a, op, |x, y| x == y)?,
        Base::NotEqual(op) => elementwise::compare(a, op, |x, y| x != y)?,
        Base::EqualElem(op) => elementwise::compare_scalar(a, op, |x, y| x == y)?,
        Base::NotEqualElem(op) => elementwise::compare_scalar(a, op, |x, y| x != y)?,
        Base::Cast(op) => elementwise::unary(a, &op.input, &op.out, |x| x)?,
        Base::Empty(op) | Base::Ones(op) | Base::Zeros(op) => a.set_plain(&op.out, false),
        Base::All(op) | Base::Any(op) => reduce::all(a, op),
        Base::AllDim(op) | Base::AnyDim(op) => {
            reduce::dims(a, &op.input, &[op.axis], &op.out, reduce::keep);
        }
    }
    Ok(())
}

fn apply_numeric(a: &mut Analysis, op: &Numeric) -> Result<(), GraphError> {
    match op {
        Numeric::Add(op) => elementwise::binary(a, op, |x, y| Some(x? + y?))?,
        Numeric::Sub(op) => elementwise::binary(a, op, |x, y| Some(x? - y?))?,
        Numeric::Mul(op) => elementwise::binary(a, op, elementwise::product)?,
        Numeric::Div(op) => elementwise::binary(a, op, elementwise::quotient)?,
        Numeric::Rem(op) => elementwise::binary(a, op, elementwise::remainder)?,
        Numeric::Powi(op) => elementwise::binary(a, op, |x, y| Some(x?.powf(y?)))?,
        Numeric::AddScalar(op) => elementwise::scalar(a, op, |x, y| x + y)?,
        Numeric::SubScalar(op) => elementwise::scalar(a, op, |x, y| x - y)?,
        Numeric::MulScalar(op) => elementwise::scalar(a, op, |x, y| x * y)?,
        Numeric::DivScalar(op) => elementwise::scalar(a, op, |x, y| x / y)?,
        Numeric::RemScalar(op) => elementwise::scalar(a, op, f64::rem_euclid)?,
        Numeric::PowiScalar(op) => elementwise::scalar(a, op, f64::powf)?,
        Numeric::ClampMin(op) => elementwise::scalar(a, op, f64::max)?,
        Numeric::ClampMax(op) => elementwise::scalar(a, op, f64::min)?,
        Numeric::Clamp(op) => {
            let (min, max) = (number(op.min), number(op.max));
            elementwise::unary(a, &op.tensor, &op.out, |x| x.max(min).min(max))?;
        }
        Numeric::Abs(op) => elementwise::unary(a, &op.input, &op.out, f64::abs)?,
        Numeric::Neg(op) => elementwise::unary(a, &op.input, &op.out, |x| -x)?,
        Numeric::Sign(op) => elementwise::unary(a, &op.input, &op.out, sign)?,
        Numeric::Greater(op) => elementwise::compare(a, op, |x, y| x > y)?,
        Numeric::GreaterEqual(op) => elementwise::compare(a, op, |x, y| x >= y)?,
        Numeric::Lower(op) => elementwise::compare(a, op, |x, y| x < y)?,
        Numeric::LowerEqual(op) => elementwise::compare(a, op, |x, y| x <= y)?,
        Numeric::GreaterElem(op) => elementwise::compare_scalar(a, op, |x, y| x > y)?,
        Numeric::GreaterEqualElem(op) => elementwise::compare_scalar(a, op, |x, y| x >= y)?,
        Numeric::LowerElem(op) => elementwise::compare_scalar(a, op, |x, y| x < y)?,
        Numeric::LowerEqualElem(op) => elementwise::compare_scalar(a, op, |x, y| x <= y)?,
        Numeric::Full(op) => a.set_plain(&op.out, false),
        Numeric::IntRandom(op) => a.set_plain(&op.out, false),
        Numeric::Mean(op)
        | Numeric::Sum(op)
        | Numeric::Prod(op)
        | Numeric::Max(op)
        | Numeric::Min(op)
        | Numeric::MaxAbs(op) => reduce::all(a, op),
        Numeric::MeanDim(op)
        | Numeric::MaxDim(op)
        | Numeric::MinDim(op)
        | Numeric::SumDim(op)
        | Numeric::ProdDim(op)
        | Numeric::MaxAbsDim(op)
        | Numeric::TopK(op) => reduce::dims(a, &op.input, &[op.axis], &op.out, reduce::zero),
        Numeric::SumDims(op) => reduce::dims(a, &op.input, &op.axes, &op.out, reduce::zero),
        Numeric::ArgMax(op) | Numeric::ArgMin(op) | Numeric::ArgTopK(op) => {
            reduce::dims(a, &op.input, &[op.axis], &op.out, reduce::lost);
        }
        Numeric::MaxDimWithIndices(op) | Numeric::MinDimWithIndices(op) => {
            reduce::dims(a, &op.tensor, &[op.dim], &op.out, reduce::zero);
            reduce::dims(a, &op.tensor, &[op.dim], &op.out_indices, reduce::lost);
        }
        Numeric::TopKWithIndices(op) => {
            reduce::dims(a, &op.tensor, &[op.dim], &op.out, reduce::zero);
            reduce::dims(a, &op.tensor, &[op.dim], &op.out_indices, reduce::lost);
        }
        Numeric::CumSum(op) | Numeric::CumProd(op) | Numeric::CumMin(op) | Numeric::CumMax(op) => {
            reduce::dims(a, &op.input, &[op.axis], &op.out, reduce::zero);
        }
        Numeric::Sort(op) => reduce::dims(a, &op.input, &[op.dim], &op.out, reduce::keep),
        Numeric::ArgSort(op) => reduce::dims(a, &op.input, &[op.dim], &op.out, reduce::lost),
        Numeric::SortWithIndices(op) => {
            reduce::dims(a, &op.input, &[op.dim], &op.out, reduce::keep);
            reduce::dims(a, &op.input, &[op.dim], &op.out_indices, reduce::lost);
        }
        Numeric::Pad(op) => spatial::pad(a, op),
    }
    Ok(())
}

fn apply_float(a: &mut Analysis, op: &OperationIr, f: &FloatOperationIr) -> Result<(), GraphError> {
    use FloatOperationIr as Float;
    let mut unary =
        |op: &burn_ir::UnaryOpIr, f: fn(f64) -> f64| elementwise::unary(a, &op.input, &op.out, f);
    match f {
        Float::Exp(op) => unary(op, f64::exp),
        Float::Log(op) => unary(op, f64::ln),
        Float::Log1p(op) => unary(op, f64::ln_1p),
        // The error function is odd; its other values are of no use to the analysis.
        Float::Erf(op) => unary(op, |x| if x == 0.0 { 0.0 } else { f64::NAN }),
        Float::Sqrt(op) => unary(op, f64::sqrt),
        Float::Cos(op) => unary(op, f64::cos),
        Float::Cosh(op) => unary(op, f64::cosh),
        Float::Sin(op) => unary(op, f64::sin),
        Float::Sinh(op) => unary(op, f64::sinh),
        Float::Tan(op) => unary(op, f64::tan),
        Float::Tanh(op) => unary(op, f64::tanh),
        Float::ArcCos(op) => unary(op, f64::acos),
        Float::ArcCosh(op) => unary(op, f64::acosh),
        Float::ArcSin(op) => unary(op, f64::asin),
        Float::ArcSinh(op) => unary(op, f64::asinh),
        Float::ArcTan(op) => unary(op, f64::atan),
        Float::ArcTanh(op) => unary(op, f64::atanh),
        Float::Round(op) => unary(op, f64::round_ties_even),
        Float::Floor(op) => unary(op, f64::floor),
        Float::Ceil(op) => unary(op, f64::ceil),
        Float::Trunc(op) => unary(op, f64::trunc),
        Float::Recip(op) => unary(op, f64::recip),
        Float::IsNan(op) => unary(op, |x| f64::from(x.is_nan())),
        Float::IsInf(op) => unary(op, |x| f64::from(x.is_infinite())),
        Float::IntoInt(op) => elementwise::unary(a, &op.input, &op.out, f64::trunc),
        Float::PowfScalar(op) => elementwise::scalar(a, op, f64::powf),
        Float::Powf(op) => elementwise::binary(a, op, |x, y| Some(x?.powf(y?))),
        Float::Hypot(op) => elementwise::binary(a, op, |x, y| Some(x?.hypot(y?))),
        Float::ArcTan2(op) => elementwise::binary(a, op, |x, y| Some(x?.atan2(y?))),
        Float::Matmul(op) => matmul::matmul(a, op),
        Float::GridSample2d(op) => {
            spatial::grid_sample(a, op);
            Ok(())
        }
        Float::Cross(op) => {
            a.opaque([&op.lhs, &op.rhs], [&op.out]);
            Ok(())
        }
        Float::Random(op) => {
            a.set_plain(&op.out, false);
            Ok(())
        }
        Float::Quantize(_) | Float::Dequantize(_) => custom::apply(a, op),
    }
}

fn apply_int(a: &mut Analysis, op: &IntOperationIr) -> Result<(), GraphError> {
    use IntOperationIr as Int;
    match op {
        Int::IntoFloat(op) => elementwise::unary(a, &op.input, &op.out, |x| x),
        Int::Matmul(op) => matmul::matmul(a, op),
        Int::BitwiseAnd(op) => elementwise::binary(a, op, elementwise::both),
        Int::BitwiseOr(op)
        | Int::BitwiseXor(op)
        | Int::BitwiseLeftShift(op)
        | Int::BitwiseRightShift(op) => elementwise::binary(a, op, elementwise::neither),
        Int::BitwiseAndScalar(op) | Int::BitwiseLeftShiftScalar(op) => {
            elementwise::map(a, &op.lhs, &op.out, reduce::zero)
        }
        Int::BitwiseRightShiftScalar(op) => elementwise::map(a, &op.lhs, &op.out, reduce::zero),
        Int::BitwiseOrScalar(op) | Int::BitwiseXorScalar(op) => {
            elementwise::map(a, &op.lhs, &op.out, reduce::lost)
        }
        Int::BitwiseNot(op) => elementwise::map(a, &op.input, &op.out, reduce::lost),
    }
}

fn apply_bool(a: &mut Analysis, op: &BoolOperationIr) -> Result<(), GraphError> {
    use BoolOperationIr as Bool;
    match op {
        Bool::IntoFloat(op) | Bool::IntoInt(op) => elementwise::unary(a, &op.input, &op.out, |x| x),
        Bool::Not(op) => elementwise::unary(a, &op.input, &op.out, |x| f64::from(x == 0.0)),
        Bool::And(op) => elementwise::binary(a, op, elementwise::both),
        Bool::Or(op) | Bool::Xor(op) => elementwise::binary(a, op, elementwise::neither),
    }
}

fn apply_module(a: &mut Analysis, op: &OperationIr, m: &Module) -> Result<(), GraphError> {
    match m {
        Module::Conv1d(op) => conv::conv(a, &op.into()),
        Module::Conv2d(op) => conv::conv(a, &op.into()),
        Module::Conv3d(op) => conv::conv(a, &op.into()),
        Module::DeformableConv2d(op) => conv::deformable(a, op),
        Module::ConvTranspose1d(op) => conv::transposed(a, &op.into()),
        Module::ConvTranspose2d(op) => conv::transposed(a, &op.into()),
        Module::ConvTranspose3d(op) => conv::transposed(a, &op.into()),
        Module::Linear(op) => matmul::linear(a, op),
        Module::Embedding(op) => matmul::embedding(a, op),
        Module::Attention(op) => matmul::attention(a, op),
        Module::BatchNorm(op) => norm::batch_norm(a, op),
        Module::LayerNorm(op) => norm::layer_norm(a, op),
        Module::AvgPool1d(op) => spatial::pool(a, &op.x, &op.out),
        Module::AvgPool2d(op) => spatial::pool(a, &op.x, &op.out),
        Module::AdaptiveAvgPool1d(op) => spatial::pool(a, &op.x, &op.out),
        Module::AdaptiveAvgPool2d(op) => spatial::pool(a, &op.x, &op.out),
        Module::AdaptiveAvgPool3d(op) => spatial::pool(a, &op.x, &op.out),
        Module::MaxPool1d(op) => spatial::max_pool(a, &op.x, &op.out),
        Module::MaxPool2d(op) => spatial::max_pool(a, &op.x, &op.out),
        Module::MaxPool1dWithIndices(op) => {
            spatial::max_pool(a, &op.x, &op.out)?;
            spatial::pool_indices(a, &op.x, &op.out_indices)
        }
        Module::MaxPool2dWithIndices(op) => {
            spatial::max_pool(a, &op.x, &op.out)?;
            spatial::pool_indices(a, &op.x, &op.out_indices)
        }
        Module::Interpolate(op) => spatial::pool(a, &op.x, &op.out),
        Module::Unfold4d(op) => spatial::unfold4d(a, op),
        Module::CtcLoss(op) => {
            a.opaque([&op.log_probs, &op.targets], [&op.out]);
            Ok(())
        }
        Module::EmbeddingBackward(_)
        | Module::LinearXBackward(_)
        | Module::LinearWeightBackward(_)
        | Module::LinearBiasBackward(_)
        | Module::Conv1dXBackward(_)
        | Module::Conv1dWeightBackward(_)
        | Module::Conv1dBiasBackward(_)
        | Module::Conv2dXBackward(_)
        | Module::Conv2dWeightBackward(_)
        | Module::Conv2dBiasBackward(_)
        | Module::Conv3dXBackward(_)
        | Module::Conv3dWeightBackward(_)
        | Module::Conv3dBiasBackward(_)
        | Module::DeformableConv2dBackward(_)
        | Module::AvgPool1dBackward(_)
        | Module::AvgPool2dBackward(_)
        | Module::AdaptiveAvgPool1dBackward(_)
        | Module::AdaptiveAvgPool2dBackward(_)
        | Module::AdaptiveAvgPool3dBackward(_)
        | Module::MaxPool1dWithIndicesBackward(_)
        | Module::MaxPool2dWithIndicesBackward(_)
        | Module::InterpolateBackward(_)
        | Module::CtcLossBackward(_)
        | Module::ConvTranspose1dWeightBackward(_)
        | Module::ConvTranspose1dBiasBackward(_)
        | Module::ConvTranspose2dWeightBackward(_)
        | Module::ConvTranspose2dBiasBackward(_)
        | Module::ConvTranspose3dWeightBackward(_)
        | Module::ConvTranspose3dBiasBackward(_) => custom::apply(a, op),
    }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
