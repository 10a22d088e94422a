//! Small models against simulated ones, in single and in double precision.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_compress::Masks;
use burn_compress::prelude::*;
use burn_compress::speedup::verify::{TOLERANCE, relative_error};
use burn_compress::speedup::{SpeedupError, slice_module};
use burn_compress_tests::random_net::{Net, NetSpec};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::groups::{kept, mask_of};
use crate::harness::{Outcome, Tally};

/// Largest relative error in double precision, where a rounding is `1e-16`.
const DOUBLE: f64 = 1e-12;
/// Largest relative error in single precision that rounding may explain.
const ILL_CONDITIONED: f64 = 1e-4;
/// How networks are counted whose rounding exceeds the tolerance.
pub const ROUNDED: &str = "rounded by more than the tolerance";

pub fn outputs(net: &Net, images: &Tensor<4>) -> Vec<TensorData> {
    vec![net.forward(images.clone()).into_data()]
}

/// Multiplies parameters by their masks and computes in double precision from then on.
struct Double<'a> {
    path: Vec<String>,
    masks: &'a Masks,
}

impl ModuleMapper for Double<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let mask = mask_of(self.masks, &self.path.join("."));
        param.map(|tensor| match mask {
            Some(mask) => {
                let data = TensorData::new(mask.values().to_vec(), mask.shape().to_vec());
                let mask = Tensor::from_data(data, &tensor.device());
                (tensor * mask).cast(DType::F64)
            }
            None => tensor.cast(DType::F64),
        })
    }
}

fn double(plain: &Net, masks: &Masks) -> Net {
    // `valid` copies the running statistics, which clones share.
    plain.valid().map(&mut Double {
        path: Vec::new(),
        masks,
    })
}

/// The largest relative error between two networks in double precision.
fn double_error(spec: &NetSpec, simulated: &Net, small: &Net) -> Result<f64, TestCaseError> {
    let images = spec.images(3, 3, &Device::flex()).cast(DType::F64);
    Ok(relative_error(
        &outputs(simulated, &images),
        &outputs(small, &images),
    )?)
}

/// The small model computes what the masked one does, on images that are not the dummy input:
/// exactly, as double precision shows, and within the tolerance in single precision. Networks with
/// an ill-conditioned output, whose rounding alone exceeds the tolerance, are counted.
pub fn check_equal(
    spec: &NetSpec,
    compressed: &Compressed<Net>,
    small: &Speedup<Net>,
    tally: &Tally,
) -> Result<f64, TestCaseError> {
    let masked = double(&compressed.unwrap_model(), &compressed.masks());
    let error = double_error(spec, &masked, &double(&small.model, &Masks::new()))?;
    prop_assert!(
        error <= DOUBLE,
        "relative error {error:e} in double precision"
    );
    let (simulated, mut worst) = (compressed.masked_model(), 0.0f64);
    for (stream, count) in [(1, 3), (2, 8)] {
        let images = spec.images(stream, count, &Device::flex());
        let error = relative_error(
            &outputs(&simulated, &images),
            &outputs(&small.model, &images),
        )?;
        worst = worst.max(error);
    }
    prop_assert!(worst <= ILL_CONDITIONED, "relative error {worst:e}");
    let count = if worst <= TOLERANCE { "equal" } else { ROUNDED };
    tally.add(count, 1);
    Ok(worst)
}

/// The small model, or nothing if it was refused because of rounding alone: the same channels
/// removed in double precision change nothing.
pub fn speed_up(
    spec: &NetSpec,
    compressed: &Compressed<Net>,
    tally: &Tally,
) -> Result<Option<Speedup<Net>>, TestCaseError> {
    let dummy_input = spec.dummy_input(&Device::flex());
    let refused = match ModelSpeedup::new(compressed.clone(), dummy_input.clone()).speedup_model() {
        Ok(small) => return Ok(Some(small)),
        Err(refused) => refused,
    };
    if !matches!(refused.downcast_ref(), Some(SpeedupError::Differs { .. })) {
        return Err(refused.into());
    }
    let (graph, masks) = (compressed.graph(&dummy_input)?, compressed.masks());
    let mut removed = BTreeSet::new();
    for group in graph.groups() {
        let mut gone: Vec<bool> = group
            .channels
            .iter()
            .map(|&channel| graph.protected(channel).is_none())
            .collect();
        for member in &group.members {
            for (gone, kept) in gone.iter_mut().zip(kept(&masks, member)) {
                *gone &= kept != Some(true);
            }
        }
        let channels = group.channels.iter().zip(gone);
        removed.extend(
            channels
                .filter(|(_, gone)| *gone)
                .map(|(channel, _)| *channel),
        );
    }
    let masked = double(&compressed.unwrap_model(), &masks);
    let small = slice_module(masked.clone(), &graph.slice_plan(&removed)?)?;
    let exact = double_error(spec, &masked, &small)?;
    prop_assert!(
        exact <= DOUBLE,
        "{refused}, and by {exact:e} in double precision"
    );
    tally.add(ROUNDED, 1);
    Ok(None)
}

/// Rounding decides rarely, or the networks are no test.
pub fn check_rounding(tally: &Tally) {
    assert!(
        tally.get(ROUNDED) * 100 <= tally.get("cases"),
        "1 % of the cases at most"
    );
}

/// The report says what a recount of the shapes says.
pub fn check_report(spec: &NetSpec, dense: &Net, small: &Speedup<Net>, device: &Device) -> Outcome {
    let images = spec.images(3, 1, device);
    let (before, after) = (dense.cost(images.clone()), small.model.cost(images));
    let report = &small.report;
    prop_assert_eq!(
        (report.params.dense, report.params.small),
        (before.params, after.params)
    );
    prop_assert_eq!(
        (report.macs.dense, report.macs.small),
        (before.macs, after.macs)
    );
    prop_assert_eq!(small.state.masks.len(), 0);
    Ok(())
}

/// All values of a model by visiting order: parameters and running statistics.
#[derive(Default)]
struct Values(Vec<TensorData>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data());
    }
}

pub fn values(net: &Net) -> Vec<TensorData> {
    let mut values = Values::default();
    net.visit(&mut values);
    values.0
}
