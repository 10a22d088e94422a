//! One recorded operation in the place of code that cannot be captured.

use burn::tensor::kind::Basic;
use burn::tensor::{BackendPrimitive, DType, Tensor};
use burn_capture::{CaptureBackend, CaptureClient};
use burn_ir::{CustomOpIr, OperationIr, ScalarIr, TensorIr};
use burn_router::{RouterClient, RouterTensor};

/// Stands for code of a forward pass in its capture: one operation with inputs and an output.
///
/// A custom kernel, or code that reads values, cannot run on the capture device and records an
/// operation there instead; on every other device nothing is recorded and the code runs.
/// [`DummyInput::with_rule`](crate::DummyInput::with_rule) gives the operation its rule.
///
/// ```
/// use burn::tensor::{Tensor, TensorData};
/// use burn_compress_graph::CustomOp;
///
/// /// Rounds on the host.
/// fn round(x: Tensor<2>) -> Tensor<2> {
///     if let Some(y) = CustomOp::new("host_round").input(&x).output(x.dims()) {
///         return y;
///     }
///     let data = x.to_data();
///     let values = data.iter::<f32>().map(f32::round).collect::<Vec<_>>();
///     Tensor::from_data(TensorData::new(values, x.dims()), &x.device())
/// }
/// ```
///
/// A backend extension that lists `Capture` among its backends records its operations by itself and
/// needs none of this.
#[derive(Debug, Clone)]
pub struct CustomOp {
    op: CustomOpIr,
    recorder: Recorder,
}

/// Device of an operation, from its inputs.
#[derive(Clone)]
enum Recorder {
    Unknown,
    Capture(CaptureClient),
    /// An input is on another device.
    Elsewhere,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Capture(_) => "Capture",
            Self::Elsewhere => "Elsewhere",
        })
    }
}

impl CustomOp {
    /// The operation `name` without inputs.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            op: CustomOpIr {
                id: name.into(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                scalars: Vec::new(),
            },
            recorder: Recorder::Unknown,
        }
    }

    /// Adds an input, of any kind.
    pub fn input<const D: usize, K>(mut self, tensor: &Tensor<D, K>) -> Self
    where
        K: Basic + BackendPrimitive<CaptureBackend, Primitive = RouterTensor<CaptureClient>>,
    {
        match tensor.clone().try_into_primitive::<CaptureBackend>() {
            Ok(primitive) => {
                if matches!(self.recorder, Recorder::Unknown) {
                    self.recorder = Recorder::Capture(primitive.client.clone());
                }
                self.op.inputs.push(primitive.into_ir());
            }
            Err(_) => self.recorder = Recorder::Elsewhere,
        }
        self
    }

    /// Adds a number that the operation depends on.
    pub fn scalar(mut self, number: f64) -> Self {
        self.op.scalars.push(ScalarIr::Float(number));
        self
    }

    /// Records the operation and returns its output, or `None` unless all inputs are on the capture
    /// device. The output has the type of the first input of floats, `f32` without any.
    pub fn output<const D: usize>(mut self, shape: [usize; D]) -> Option<Tensor<D>> {
        let Recorder::Capture(client) = self.recorder else {
            return None;
        };
        let mut types = self.op.inputs.iter().map(|input| input.dtype);
        let dtype = types.find(DType::is_float).unwrap_or(DType::F32);
        let out = TensorIr::uninit(client.create_empty_handle(), shape.into(), dtype);
        self.op.outputs.push(out);
        let out = client.register(OperationIr::Custom(self.op)).pop()?;
        Some(Tensor::from_primitive::<CaptureBackend>(out))
    }
}
