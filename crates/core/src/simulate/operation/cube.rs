//! The operation as kernels of CubeCL, for the devices of `wgpu`, `vulkan` and `cuda`.
//!
//! A kernel reads each value once and writes it once, several neighbours at a time where they have
//! one scale and one factor. Values are changed in place where nothing else holds their memory. The
//! arithmetic is that of [`composed`](super::composed), in the same order, so that a device rounds
//! both alike.
//!
//! With Burn's feature `fusion` the values are not in memory yet when they come here. The formula
//! stays in force, and Burn makes kernels of it.

use std::any::Any;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Cube, DispatchTensorKind, TensorMetadata};
use burn::tensor::{Bool, DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::runs::Runs;
use super::{Operation, Outcome, Rounding};

/// [`composed::forward`](super::composed::forward), bit for bit.
///
/// # Errors
///
/// `x` itself, on another backend, in another type than `f32`, without a rounding, and where scales
/// or masks repeat in an order of their own.
pub(super) fn forward<const D: usize>(
    x: Tensor<D>,
    operation: &Operation<D>,
    with_outside: bool,
) -> Result<Outcome<D>, Tensor<D>> {
    let dims = x.dims();
    let Some((rounding, _)) = &operation.rounding else {
        return Err(x);
    };
    let (scale, zero_point, (qmin, qmax)) = match rounding {
        Rounding::Affine {
            scale,
            zero_point,
            qmin,
            qmax,
        } => (scale, zero_point, (*qmin, *qmax)),
        // A sign has no zero point; the kernel does not read it.
        Rounding::Sign { scale } => (scale, scale, (0.0, 0.0)),
    };
    let is_sign = matches!(rounding, Rounding::Sign { .. });
    let mask = match &operation.mask {
        Some(mask) => Repeated::of(mask, &dims).map(Some),
        None => Some(None),
    };
    let parameters = (
        Repeated::of(scale, &dims),
        Repeated::of(zero_point, &dims),
        mask,
    );
    let (Some(scale), Some(zero_point), Some(mask)) = parameters else {
        return Err(x);
    };
    let flag = DType::from(x.device().settings().bool_dtype);
    let pass = Pass::new(x, &[Some(&scale), Some(&zero_point), mask.as_ref()])?;
    let outside = with_outside.then(|| pass.empty(flag));
    if pass.elements > 0 {
        round_kernel::launch(
            &pass.x.client,
            pass.cubes.clone(),
            pass.units,
            pass.x.required_address_type(),
            pass.lanes,
            pass.x.clone().into_buffer_arg(),
            scale.values.into_buffer_arg(),
            zero_point.values.into_buffer_arg(),
            mask.clone()
                .map(|mask| mask.values.into_buffer_arg())
                .into(),
            pass.result(),
            outside.clone().map(CubeTensor::into_buffer_arg).into(),
            repeat(Some(scale.runs)),
            repeat(Some(zero_point.runs)),
            repeat(mask.map(|mask| mask.runs)),
            qmin,
            qmax,
            is_sign,
            dtype_to_storage_type(flag),
        );
    }
    Ok(Outcome {
        value: pass.finish(),
        outside: outside.map(flags),
    })
}

/// [`composed::backward`](super::composed::backward), bit for bit.
///
/// # Errors
///
/// As of [`forward`]; the gradient itself as well where nothing is outside, as then it is a product
/// at most.
pub(super) fn backward<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<&Tensor<D>>,
    outside: Option<&Tensor<D, Bool>>,
) -> Result<Tensor<D>, Tensor<D>> {
    let dims = gradient.dims();
    let mask = match mask {
        Some(mask) => Repeated::of(mask, &dims).map(Some),
        None => Some(None),
    };
    let outside = outside.and_then(|outside| flag_memory(outside.clone()));
    let (Some(mask), Some(outside)) = (mask, outside) else {
        return Err(gradient);
    };
    let pass = Pass::new(gradient, &[mask.as_ref()])?;
    let flag = dtype_to_storage_type(outside.dtype());
    if pass.elements > 0 {
        pass_back_kernel::launch(
            &pass.x.client,
            pass.cubes.clone(),
            pass.units,
            pass.x.required_address_type(),
            pass.lanes,
            pass.x.clone().into_buffer_arg(),
            outside.into_buffer_arg(),
            mask.clone()
                .map(|mask| mask.values.into_buffer_arg())
                .into(),
            pass.result(),
            repeat(mask.map(|mask| mask.runs)),
            flag,
        );
    }
    Ok(pass.finish())
}

/// Which of a few values belongs to an element: that at `(element / inner) % blocks`.
#[derive(CubeLaunch, CubeType)]
struct Repeat {
    inner: usize,
    blocks: usize,
    /// Whether there is one value for all elements.
    #[cube(comptime)]
    is_single: bool,
}

#[cube]
impl Repeat {
    fn at(&self, element: usize) -> usize {
        let mut index = 0usize;
        if comptime!(!self.is_single) {
            index = (element / self.inner) % self.blocks;
        }
        index
    }
}

#[cube(launch, address_type = "dynamic")]
fn round_kernel<B: Int, N: Size>(
    x: &[Vector<f32, N>],
    scale: &[f32],
    zero_point: &[f32],
    mask: ComptimeOption<&[f32]>,
    value: &mut [Vector<f32, N>],
    outside: ComptimeOption<&mut [Vector<B, N>]>,
    scales: Repeat,
    zero_points: Repeat,
    masks: Repeat,
    qmin: f32,
    qmax: f32,
    #[comptime] is_sign: bool,
    #[define(B)] _flag: ElemType,
) {
    if ABSOLUTE_POS >= value.len() {
        terminate!();
    }
    let element = ABSOLUTE_POS * N::value();
    let x = x[ABSOLUTE_POS];
    let scale = Vector::<f32, N>::new(scale[scales.at(element)]);
    let mut rounded = if is_sign {
        let zero = Vector::<f32, N>::new(0.0);
        let signed = select_many(x.less_than(&zero), -scale, scale);
        #[comptime]
        if let ComptimeOption::Some(outside) = outside {
            let is_inside = Vector::<B, N>::cast_from(x.abs().less_equal(&scale));
            outside[ABSOLUTE_POS] = Vector::new(B::from_int(1)) - is_inside;
        }
        select_many(x.is_nan(), x, signed)
    } else {
        let zero_point = Vector::<f32, N>::new(zero_point[zero_points.at(element)]);
        let (qmin, qmax) = (Vector::<f32, N>::new(qmin), Vector::<f32, N>::new(qmax));
        let whole = zero_point.floor();
        let steps = x / scale + (zero_point - whole);
        let q = clamp_nan(steps.round() + whole, qmin, qmax);
        #[comptime]
        if let ComptimeOption::Some(outside) = outside {
            let position = steps + whole;
            let clamped = clamp_nan(position, qmin, qmax);
            outside[ABSOLUTE_POS] = Vector::cast_from(clamped.not_equal(&position));
        }
        (q - zero_point) * scale
    };
    #[comptime]
    if let ComptimeOption::Some(mask) = mask {
        rounded = rounded * Vector::new(mask[masks.at(element)]);
    }
    value[ABSOLUTE_POS] = rounded;
}

#[cube(launch, address_type = "dynamic")]
fn pass_back_kernel<B: Int, N: Size>(
    gradient: &[Vector<f32, N>],
    outside: &[Vector<B, N>],
    mask: ComptimeOption<&[f32]>,
    result: &mut [Vector<f32, N>],
    masks: Repeat,
    #[define(B)] _flag: ElemType,
) {
    if ABSOLUTE_POS >= result.len() {
        terminate!();
    }
    let mut passed = gradient[ABSOLUTE_POS];
    #[comptime]
    if let ComptimeOption::Some(mask) = mask {
        passed = passed * Vector::new(mask[masks.at(ABSOLUTE_POS * N::value())]);
    }
    let is_outside = Vector::cast_from(outside[ABSOLUTE_POS]);
    result[ABSOLUTE_POS] = select_many(is_outside, Vector::new(0.0), passed);
}

fn repeat(runs: Option<Runs>) -> RepeatLaunch {
    let Runs { blocks, inner } = runs.unwrap_or(Runs {
        blocks: 1,
        inner: 1,
    });
    RepeatLaunch::new(inner.max(1), blocks.max(1), blocks <= 1)
}

/// One value for each run of elements, in memory.
#[derive(Clone)]
struct Repeated {
    values: CubeTensor,
    runs: Runs,
}

impl Repeated {
    fn of<const D: usize>(tensor: &Tensor<D>, dims: &[usize; D]) -> Option<Self> {
        let runs = Runs::new(&tensor.dims(), dims)?;
        let values = into_contiguous(memory(tensor.clone()).ok()?);
        Some(Self { values, runs })
    }
}

/// A kernel over all elements of a tensor.
struct Pass {
    x: CubeTensor,
    /// Where the results go; none in place.
    result: Option<CubeTensor>,
    elements: usize,
    /// Neighbours that a unit computes.
    lanes: usize,
    cubes: CubeCount,
    units: CubeDim,
}

impl Pass {
    fn new<const D: usize>(
        x: Tensor<D>,
        parameters: &[Option<&Repeated>],
    ) -> Result<Self, Tensor<D>> {
        let elements: usize = x.dims().iter().product();
        let x = into_contiguous(memory(x)?);
        let is_one_value = |lanes: &usize| {
            let mut runs = parameters.iter().flatten().map(|parameter| parameter.runs);
            elements % lanes == 0 && runs.all(|runs| runs.blocks <= 1 || runs.inner % lanes == 0)
        };
        let sizes = x.client.io_optimized_vector_sizes(size_of::<f32>());
        let lanes = sizes.filter(is_one_value).max().unwrap_or(1);
        let units = CubeDim::new(&x.client, elements / lanes);
        let cubes = calculate_cube_count_elemwise(&x.client, elements / lanes, units);
        let mut pass = Self {
            x,
            result: None,
            elements,
            lanes,
            cubes,
            units,
        };
        if !pass.x.handle.can_mut() {
            pass.result = Some(pass.empty(DType::F32));
        }
        Ok(pass)
    }

    /// Memory for a value of each element.
    fn empty(&self, dtype: DType) -> CubeTensor {
        let (client, device) = (self.x.client.clone(), self.x.device.clone());
        empty_device_contiguous_dtype(client, device, self.x.shape(), dtype)
    }

    /// The results as an argument of a kernel whose first argument is `x`.
    fn result(&self) -> BufferArg {
        match &self.result {
            Some(result) => result.clone().into_buffer_arg(),
            None => BufferArg::alias(0, self.elements),
        }
    }

    fn finish<const D: usize>(self) -> Tensor<D> {
        let result = self.result.unwrap_or(self.x);
        Tensor::from_primitive::<Cube>(converted::<_, FloatTensor<Cube>>(result))
    }
}

/// The memory of a tensor of `f32`.
///
/// # Errors
///
/// The tensor itself, of another backend or type, and where Burn computes it later.
fn memory<const D: usize>(tensor: Tensor<D>) -> Result<CubeTensor, Tensor<D>> {
    let shared = tensor.clone().into_dispatch();
    let is_cube = matches!(&shared.kind, DispatchTensorKind::Cube(_));
    drop(shared);
    if !is_cube || tensor.dtype() != DType::F32 {
        return Err(tensor);
    }
    let shared = tensor.clone();
    let primitive = shared.try_into_primitive::<Cube>().map_err(|_| tensor)?;
    let primitive: Box<dyn Any> = Box::new(primitive);
    match primitive.downcast::<CubeTensor>() {
        Ok(memory) => Ok(*memory),
        Err(other) => {
            let other = other.downcast::<FloatTensor<Cube>>();
            let other = other.expect("it is what it was before");
            Err(Tensor::from_primitive::<Cube>(*other))
        }
    }
}

fn flag_memory<const D: usize>(flags: Tensor<D, Bool>) -> Option<CubeTensor> {
    let flags: Box<dyn Any> = Box::new(flags.try_into_primitive::<Cube>().ok()?);
    let memory = flags.downcast::<CubeTensor>().ok()?;
    Some(into_contiguous(*memory))
}

fn flags<const D: usize>(memory: CubeTensor) -> Tensor<D, Bool> {
    Tensor::from_primitive::<Cube>(converted::<_, BoolTensor<Cube>>(memory))
}

/// A tensor in memory as the backend's, which it is where it came from there.
fn converted<From: Any, To: Any>(memory: From) -> To {
    let memory: Box<dyn Any> = Box::new(memory);
    let tensor = memory.downcast::<To>();
    *tensor.expect("tensors that are in memory are the backend's")
}
