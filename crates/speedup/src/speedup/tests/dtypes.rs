//! Models of every float type, masked and quantized.

use super::*;
use burn::module::{ModuleMapper, Param};
use burn::tensor::DType;

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

fn speed_up_in(
    dtype: FloatDType,
    masks: &Masks,
    calibration: &Calibration,
    made_inside: bool,
) -> Speedup<Net> {
    let device = Device::flex();
    let net = Net::new(&device).map(&mut Cast(dtype));
    let x = computed([3, 2, 2, 2], &device).cast(dtype);
    let dummy = match made_inside {
        false => DummyInput::new(x, |net: &Net, x| net.forward(x)),
        true => DummyInput::from_fn(move |net: &Net, device| {
            let ones = Tensor::<4>::ones([3, 2, 2, 2], device);
            net.forward((ones * 0.3).cast(dtype))
        }),
    };
    let compressed = Compressed::from_parts(net, masks, calibration, History::default()).unwrap();
    ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap()
}

const DTYPES: [(FloatDType, DType); 4] = [
    (FloatDType::F16, DType::F16),
    (FloatDType::BF16, DType::BF16),
    (FloatDType::F32, DType::F32),
    (FloatDType::F64, DType::F64),
];

#[test]
fn masked_models_are_cut_in_every_type() {
    for (dtype, expected) in DTYPES {
        for made_inside in [false, true] {
            let small = speed_up_in(dtype, &masks(), &Calibration::new(), made_inside);
            assert_eq!(small.model.stem.weight.dims(), [6, 2, 3, 3], "{dtype:?}");
            assert_eq!(small.model.stem.weight.val().dtype(), expected);
            assert_eq!(small.model.norm.gamma.val().dtype(), expected);
            assert!(small.report.max_relative_error <= TOLERANCE, "{dtype:?}");
        }
    }
}

#[test]
fn masked_and_quantized_models_are_cut_in_every_type() {
    let calibration = Calibration::from([
        (id("stem.weight"), entry(Grid::per_channel(4, 0, 8))),
        (id("depthwise._output_0"), entry(Grid::per_channel(4, 1, 8))),
    ]);
    let mut masks = masks();
    // Values that stay as zeros beside the channels that go.
    let mut values = vec![1.0; 24 * 3];
    values[4 * 3..4 * 3 + 2].fill(0.0);
    masks.insert(id("fc.weight"), Mask::new(values, [24, 3]).unwrap());
    for (dtype, expected) in DTYPES {
        let small = speed_up_in(dtype, &masks, &calibration, false);
        assert_eq!(small.model.stem.weight.dims(), [6, 2, 3, 3], "{dtype:?}");
        assert_eq!(small.model.fc.weight.val().dtype(), expected);
        assert_eq!(small.state.calibration.len(), 2);
        assert!(small.report.max_relative_error <= TOLERANCE, "{dtype:?}");
        assert_eq!(small.report.rounding_boundary.differing, 0, "{dtype:?}");
    }
}

#[test]
fn halves_that_cannot_be_computed_in_double_precision_are_refused_as_such() {
    let device = Device::flex();
    let speed_up = |dtype: FloatDType| {
        // The output grows by a thousandth with each channel that goes, as rounding might let it.
        let dummy = DummyInput::from_fn(move |net: &Net, device| {
            let x = (Tensor::<4>::ones([3, 2, 2, 2], device) * 0.3).cast(dtype);
            let gone = 8 - net.stem.weight.dims()[0];
            net.forward(x) * (1.0 + 1e-3 * gone as f64)
        });
        let net = Net::new(&device).map(&mut Cast(dtype));
        let compressed =
            Compressed::from_parts(net, &masks(), &Calibration::new(), History::default());
        ModelSpeedup::new(compressed.unwrap(), dummy)
            .speedup_model()
            .unwrap_err()
    };
    let error = speed_up(FloatDType::F16);
    assert!(
        matches!(error.downcast_ref(), Some(SpeedupError::Coarse { dtype, .. }) if dtype == "F16")
    );
    assert!(error.to_string().contains("`DummyInput::new`"), "{error}");
    let error = speed_up(FloatDType::F32);
    let cause = error.downcast_ref();
    assert!(
        matches!(cause, Some(SpeedupError::Differs { .. })),
        "{error}"
    );
}
