//! The rule of every operation.

use burn_compress_core::graph::builtin;
use burn_ir::{
    ActivationOperationIr as Activation, BaseOperationIr as Base, BoolOperationIr as Bool,
    CustomOpIr, FloatOperationIr as Float, IntOperationIr as Int, ModuleOperationIr as Module,
    NumericOperationIr as Numeric, OperationIr,
};

use super::{
    Lower, Lowering, Unsupported, activation, arithmetic, attention, constant, conv, index, linear,
    norm, pool, recurrent, reduce, scalar_value, select, shape, spatial,
};

/// Lowers one operation.
pub(super) fn apply(l: &mut Lower, op: &OperationIr) -> Lowering {
    match op {
        OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base) => {
            apply_base(l, base)
        }
        OperationIr::NumericFloat(_, numeric) | OperationIr::NumericInt(_, numeric) => {
            apply_numeric(l, numeric)
        }
        OperationIr::Float(_, float) => apply_float(l, float),
        OperationIr::Int(int) => apply_int(l, int),
        OperationIr::Bool(bool) => apply_bool(l, bool),
        OperationIr::Module(module) => apply_module(l, module),
        OperationIr::Activation(op) => apply_activation(l, op),
        OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
        OperationIr::Custom(op) => apply_custom(l, op),
        OperationIr::Distributed(_) => Err(Unsupported::no_operator()),
    }
}

fn apply_custom(l: &mut Lower, op: &CustomOpIr) -> Lowering {
    match op.id.as_str() {
        builtin::LSTM => recurrent::apply(l, op, "LSTM"),
        builtin::GRU => recurrent::apply(l, op, "GRU"),
        _ => Err(Unsupported::new(
            "it is a custom operation, whose meaning is not known: write the layer with operations of \
             Burn for the export",
        )),
    }
}

fn apply_base(l: &mut Lower, op: &Base) -> Lowering {
    match op {
        Base::Reshape(op) => shape::reshape(l, &op.input, &op.out),
        Base::SwapDims(op) => shape::swap_dims(l, op),
        Base::Permute(op) => shape::permute(l, &op.input, &op.axes, &op.out),
        Base::Flip(op) => shape::flip(l, op),
        Base::Expand(op) => shape::expand(l, op),
        Base::RepeatDim(op) => shape::repeat(l, op),
        Base::Cat(op) => shape::cat(l, op),
        Base::Unfold(op) => index::unfold(l, op),
        Base::Slice(op) => select::slice(l, op),
        Base::SliceAssign(op) => select::slice_assign(l, op),
        Base::Select(op) => index::select(l, op),
        Base::SelectAssign(op) => index::select_assign(l, op),
        Base::Gather(op) => index::gather(l, op),
        Base::GatherNd(op) => index::gather_nd(l, op),
        Base::Scatter(op) => index::scatter(l, op),
        Base::ScatterNd(op) => index::scatter_nd(l, op),
        Base::MaskWhere(op) => arithmetic::mask_where(l, op),
        Base::MaskFill(op) => arithmetic::mask_fill(l, op),
        Base::Equal(op) => arithmetic::binary(l, "Equal", op),
        Base::NotEqual(op) => arithmetic::not_equal(l, op),
        Base::EqualElem(op) => arithmetic::with_number(l, "Equal", op),
        Base::NotEqualElem(op) => arithmetic::not_equal_number(l, op),
        Base::Cast(op) => arithmetic::cast(l, &op.input, &op.out),
        Base::Empty(op) | Base::Zeros(op) => constant::full(l, 0.0, &op.out),
        Base::Ones(op) => constant::full(l, 1.0, &op.out),
        Base::All(op) => reduce::bools(l, "ReduceMin", &op.input, None, &op.out),
        Base::Any(op) => reduce::bools(l, "ReduceMax", &op.input, None, &op.out),
        Base::AllDim(op) => reduce::bools(l, "ReduceMin", &op.input, Some(op.axis), &op.out),
        Base::AnyDim(op) => reduce::bools(l, "ReduceMax", &op.input, Some(op.axis), &op.out),
    }
}

fn apply_numeric(l: &mut Lower, op: &Numeric) -> Lowering {
    match op {
        Numeric::Add(op) => arithmetic::binary(l, "Add", op),
        Numeric::Sub(op) => arithmetic::binary(l, "Sub", op),
        Numeric::Mul(op) => arithmetic::binary(l, "Mul", op),
        Numeric::Div(op) => arithmetic::binary(l, "Div", op),
        Numeric::Powi(op) => arithmetic::binary(l, "Pow", op),
        Numeric::Rem(op) => arithmetic::remainder(l, op),
        Numeric::AddScalar(op) => arithmetic::with_number(l, "Add", op),
        Numeric::SubScalar(op) => arithmetic::with_number(l, "Sub", op),
        Numeric::MulScalar(op) => arithmetic::with_number(l, "Mul", op),
        Numeric::DivScalar(op) => arithmetic::with_number(l, "Div", op),
        Numeric::RemScalar(op) => arithmetic::remainder_number(l, op),
        Numeric::PowiScalar(op) => arithmetic::power(l, op),
        Numeric::ClampMin(op) => arithmetic::clamp(l, &op.lhs, Some(op.rhs), None, &op.out),
        Numeric::ClampMax(op) => arithmetic::clamp(l, &op.lhs, None, Some(op.rhs), &op.out),
        Numeric::Clamp(op) => arithmetic::clamp(l, &op.tensor, Some(op.min), Some(op.max), &op.out),
        Numeric::Abs(op) => arithmetic::unary(l, "Abs", op),
        Numeric::Neg(op) => arithmetic::unary(l, "Neg", op),
        Numeric::Sign(op) => arithmetic::unary(l, "Sign", op),
        Numeric::Greater(op) => arithmetic::binary(l, "Greater", op),
        Numeric::GreaterEqual(op) => arithmetic::binary(l, "GreaterOrEqual", op),
        Numeric::Lower(op) => arithmetic::binary(l, "Less", op),
        Numeric::LowerEqual(op) => arithmetic::binary(l, "LessOrEqual", op),
        Numeric::GreaterElem(op) => arithmetic::with_number(l, "Greater", op),
        Numeric::GreaterEqualElem(op) => arithmetic::with_number(l, "GreaterOrEqual", op),
        Numeric::LowerElem(op) => arithmetic::with_number(l, "Less", op),
        Numeric::LowerEqualElem(op) => arithmetic::with_number(l, "LessOrEqual", op),
        Numeric::Full(op) => constant::full(l, scalar_value(op.value), &op.out),
        Numeric::Mean(op) => reduce::all(l, "ReduceMean", &op.input, &op.out),
        Numeric::Sum(op) => reduce::all(l, "ReduceSum", &op.input, &op.out),
        Numeric::Prod(op) => reduce::all(l, "ReduceProd", &op.input, &op.out),
        Numeric::Max(op) => reduce::all(l, "ReduceMax", &op.input, &op.out),
        Numeric::Min(op) => reduce::all(l, "ReduceMin", &op.input, &op.out),
        Numeric::MaxAbs(op) => reduce::largest(l, &op.input, None, &op.out),
        Numeric::MeanDim(op) => reduce::mean(l, op),
        Numeric::SumDim(op) => reduce::dims(l, "ReduceSum", &op.input, &[op.axis], &op.out),
        Numeric::SumDims(op) => reduce::dims(l, "ReduceSum", &op.input, &op.axes, &op.out),
        Numeric::ProdDim(op) => reduce::dims(l, "ReduceProd", &op.input, &[op.axis], &op.out),
        Numeric::MaxDim(op) => reduce::dims(l, "ReduceMax", &op.input, &[op.axis], &op.out),
        Numeric::MinDim(op) => reduce::dims(l, "ReduceMin", &op.input, &[op.axis], &op.out),
        Numeric::MaxAbsDim(op) => reduce::largest(l, &op.input, Some(op.axis), &op.out),
        Numeric::ArgMax(op) => reduce::position(l, "ArgMax", &op.input, op.axis, &op.out),
        Numeric::ArgMin(op) => reduce::position(l, "ArgMin", &op.input, op.axis, &op.out),
        Numeric::MaxDimWithIndices(op) => {
            reduce::dims(l, "ReduceMax", &op.tensor, &[op.dim], &op.out)?;
            reduce::position(l, "ArgMax", &op.tensor, op.dim, &op.out_indices)
        }
        Numeric::MinDimWithIndices(op) => {
            reduce::dims(l, "ReduceMin", &op.tensor, &[op.dim], &op.out)?;
            reduce::position(l, "ArgMin", &op.tensor, op.dim, &op.out_indices)
        }
        Numeric::TopK(op) => reduce::top(l, &op.input, op.axis, true, Some(&op.out), None),
        Numeric::ArgTopK(op) => reduce::top(l, &op.input, op.axis, true, None, Some(&op.out)),
        Numeric::TopKWithIndices(op) => reduce::top(
            l,
            &op.tensor,
            op.dim,
            true,
            Some(&op.out),
            Some(&op.out_indices),
        ),
        Numeric::Sort(op) => reduce::top(l, &op.input, op.dim, op.descending, Some(&op.out), None),
        Numeric::ArgSort(op) => {
            reduce::top(l, &op.input, op.dim, op.descending, None, Some(&op.out))
        }
        Numeric::SortWithIndices(op) => {
            let (values, indices) = (Some(&op.out), Some(&op.out_indices));
            reduce::top(l, &op.input, op.dim, op.descending, values, indices)
        }
        Numeric::CumSum(op) => reduce::cumulative_sum(l, op),
        Numeric::Pad(op) => spatial::pad(l, op),
        Numeric::CumProd(_) | Numeric::CumMin(_) | Numeric::CumMax(_) => {
            Err(Unsupported::no_operator())
        }
        Numeric::IntRandom(_) => random(),
    }
}

fn random() -> Lowering {
    Err(Unsupported::new(
        "random numbers are other ones at every run: take them as an input of the model",
    ))
}

fn apply_float(l: &mut Lower, op: &Float) -> Lowering {
    match op {
        Float::Exp(op) => arithmetic::unary(l, "Exp", op),
        Float::Log(op) => arithmetic::unary(l, "Log", op),
        Float::Log1p(op) => arithmetic::log1p(l, op),
        Float::Erf(op) => arithmetic::unary(l, "Erf", op),
        Float::Sqrt(op) => arithmetic::unary(l, "Sqrt", op),
        Float::Cos(op) => arithmetic::unary(l, "Cos", op),
        Float::Cosh(op) => arithmetic::unary(l, "Cosh", op),
        Float::Sin(op) => arithmetic::unary(l, "Sin", op),
        Float::Sinh(op) => arithmetic::unary(l, "Sinh", op),
        Float::Tan(op) => arithmetic::unary(l, "Tan", op),
        Float::Tanh(op) => arithmetic::unary(l, "Tanh", op),
        Float::ArcCos(op) => arithmetic::unary(l, "Acos", op),
        Float::ArcCosh(op) => arithmetic::unary(l, "Acosh", op),
        Float::ArcSin(op) => arithmetic::unary(l, "Asin", op),
        Float::ArcSinh(op) => arithmetic::unary(l, "Asinh", op),
        Float::ArcTan(op) => arithmetic::unary(l, "Atan", op),
        Float::ArcTanh(op) => arithmetic::unary(l, "Atanh", op),
        Float::Round(op) => arithmetic::unary(l, "Round", op),
        Float::Floor(op) => arithmetic::unary(l, "Floor", op),
        Float::Ceil(op) => arithmetic::unary(l, "Ceil", op),
        Float::Trunc(op) => arithmetic::truncate(l, op),
        Float::Recip(op) => arithmetic::unary(l, "Reciprocal", op),
        Float::IsNan(op) => arithmetic::unary(l, "IsNaN", op),
        Float::IsInf(op) => arithmetic::unary(l, "IsInf", op),
        Float::IntoInt(op) => arithmetic::cast(l, &op.input, &op.out),
        Float::PowfScalar(op) => arithmetic::power(l, op),
        Float::Powf(op) => arithmetic::binary(l, "Pow", op),
        Float::Hypot(op) => arithmetic::hypot(l, op),
        Float::Matmul(op) => linear::matmul(l, op),
        Float::GridSample2d(op) => spatial::grid_sample(l, op),
        Float::Random(_) => random(),
        Float::ArcTan2(_) | Float::Cross(_) => Err(Unsupported::no_operator()),
        Float::Quantize(_) | Float::Dequantize(_) => Err(Unsupported::new(
            "it quantizes with Burn's own scheme: export the model before its parameters are quantized",
        )),
    }
}

fn apply_int(l: &mut Lower, op: &Int) -> Lowering {
    match op {
        Int::IntoFloat(op) => arithmetic::cast(l, &op.input, &op.out),
        Int::Matmul(op) => linear::matmul(l, op),
        Int::BitwiseAnd(op) => arithmetic::binary(l, "BitwiseAnd", op),
        Int::BitwiseOr(op) => arithmetic::binary(l, "BitwiseOr", op),
        Int::BitwiseXor(op) => arithmetic::binary(l, "BitwiseXor", op),
        Int::BitwiseAndScalar(op) => arithmetic::with_number(l, "BitwiseAnd", op),
        Int::BitwiseOrScalar(op) => arithmetic::with_number(l, "BitwiseOr", op),
        Int::BitwiseXorScalar(op) => arithmetic::with_number(l, "BitwiseXor", op),
        Int::BitwiseNot(op) => arithmetic::unary(l, "BitwiseNot", op),
        Int::BitwiseLeftShift(_)
        | Int::BitwiseLeftShiftScalar(_)
        | Int::BitwiseRightShift(_)
        | Int::BitwiseRightShiftScalar(_) => Err(Unsupported::new(
            "ONNX shifts unsigned integers alone: multiply or divide by a power of two",
        )),
    }
}

fn apply_bool(l: &mut Lower, op: &Bool) -> Lowering {
    match op {
        Bool::IntoFloat(op) | Bool::IntoInt(op) => arithmetic::cast(l, &op.input, &op.out),
        Bool::Not(op) => arithmetic::unary(l, "Not", op),
        Bool::And(op) => arithmetic::binary(l, "And", op),
        Bool::Or(op) => arithmetic::binary(l, "Or", op),
        Bool::Xor(op) => arithmetic::binary(l, "Xor", op),
    }
}

fn apply_activation(l: &mut Lower, op: &Activation) -> Lowering {
    match op {
        Activation::Relu(op) => arithmetic::unary(l, "Relu", op),
        Activation::Sigmoid(op) => arithmetic::unary(l, "Sigmoid", op),
        Activation::LeakyRelu(op) => activation::leaky_relu(l, op),
        Activation::PRelu(op) => arithmetic::binary(l, "PRelu", op),
        Activation::Gelu(op) => activation::gelu(l, op),
        Activation::HardSigmoid(op) => activation::hard_sigmoid(l, op),
        Activation::LogSigmoid(op) => activation::log_sigmoid(l, op),
        Activation::Softmax(op) => activation::along(l, "Softmax", op),
        Activation::LogSoftmax(op) => activation::along(l, "LogSoftmax", op),
        Activation::Softmin(op) => activation::softmin(l, op),
        Activation::ReluBackward(_)
        | Activation::GeluBackward(_)
        | Activation::SigmoidBackward(_)
        | Activation::LogSigmoidBackward(_) => backward(),
    }
}

fn backward() -> Lowering {
    Err(Unsupported::new(
        "it computes a gradient, which is no part of a forward pass",
    ))
}

fn apply_module(l: &mut Lower, op: &Module) -> Lowering {
    match op {
        Module::Conv1d(op) => conv::conv(l, &op.into()),
        Module::Conv2d(op) => conv::conv(l, &op.into()),
        Module::Conv3d(op) => conv::conv(l, &op.into()),
        Module::ConvTranspose1d(op) => conv::conv(l, &op.into()),
        Module::ConvTranspose2d(op) => conv::conv(l, &op.into()),
        Module::ConvTranspose3d(op) => conv::conv(l, &op.into()),
        Module::Linear(op) => linear::linear(l, op),
        Module::Embedding(op) => linear::embedding(l, op),
        Module::Attention(op) => attention::attention(l, op),
        Module::BatchNorm(op) => norm::batch_norm(l, op),
        Module::LayerNorm(op) => norm::layer_norm(l, op),
        Module::AvgPool1d(op) => pool::average(l, &op.into(), op.count_include_pad),
        Module::AvgPool2d(op) => pool::average(l, &op.into(), op.count_include_pad),
        Module::AdaptiveAvgPool1d(op) => pool::adaptive(l, &op.x, &op.out),
        Module::AdaptiveAvgPool2d(op) => pool::adaptive(l, &op.x, &op.out),
        Module::AdaptiveAvgPool3d(op) => pool::adaptive(l, &op.x, &op.out),
        Module::MaxPool1d(op) => pool::max(l, &op.into(), None),
        Module::MaxPool2d(op) => pool::max(l, &op.into(), None),
        Module::MaxPool1dWithIndices(op) => pool::max(l, &op.into(), Some(&op.out_indices)),
        Module::MaxPool2dWithIndices(op) => pool::max(l, &op.into(), Some(&op.out_indices)),
        Module::Interpolate(op) => spatial::interpolate(l, op),
        Module::DeformableConv2d(_) => Err(Unsupported::new(
            "ONNX has it from operator set 19 on, and onnxruntime does not compute it",
        )),
        Module::Unfold4d(_) | Module::CtcLoss(_) => Err(Unsupported::no_operator()),
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
        | Module::ConvTranspose3dBiasBackward(_) => backward(),
    }
}
