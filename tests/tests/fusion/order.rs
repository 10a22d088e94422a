//! The order of fusing: what it does not change, and what it does.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress::{Algorithm, BoxError, Mode, Run};
use burn_compress_tests::chains::{Chain, HALF, id, outcome};

use crate::fixtures::{DISTILL, QUANTIZE, STEPS, chain, distilled, pruned, quantized, removed};

fn fused(order: [Mode; 3]) -> Chain {
    order.into_iter().fold(chain(), |chain, mode| {
        match mode {
            Mode::Pruning => pruned(chain, HALF),
            Mode::Quantization => quantized(chain, QUANTIZE),
            Mode::Distillation => distilled(chain, DISTILL),
        }
        .unwrap()
    })
}

#[test]
fn all_orders_of_fusing_end_bit_for_bit_the_same() {
    use Mode::{Distillation as D, Pruning as P, Quantization as Q};
    let orders = [
        [P, Q, D],
        [P, D, Q],
        [Q, P, D],
        [Q, D, P],
        [D, P, Q],
        [D, Q, P],
    ];
    let first = outcome(fused(orders[0]), &Budget::steps(STEPS));
    // All three do something, or the comparison would say nothing.
    assert_eq!(removed(&first.masks, "block.conv1.weight").len(), 4);
    assert!(first.calibration[&id("block.conv1.weight")].enabled);
    assert!(
        first
            .history
            .steps
            .iter()
            .all(|record| record.loss != record.task_loss)
    );
    for order in &orders[1..] {
        let found = outcome(fused(*order), &Budget::steps(STEPS));
        assert_eq!(found.difference(&first), [""; 0], "{order:?}");
    }
}

/// Two layers of one number each.
#[derive(Module, Debug)]
struct Numbers {
    a: Wrapper<Linear>,
    b: Wrapper<Linear>,
}

impl Numbers {
    fn new(a: f32, b: f32) -> Self {
        let device = Device::flex();
        let linear = |value: f32| {
            let mut linear = LinearConfig::new(1, 1).with_bias(false).init(&device);
            linear.weight = Param::from_data(TensorData::from([[value]]), &device);
            Wrapper::new(linear)
        };
        Self {
            a: linear(a),
            b: linear(b),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.b.forward(self.a.forward(x))
    }

    /// A chain over `a = 2`, `b = 3` whose input is 1, so that the task loss is 6.
    fn chain() -> Compressor<Self, Tensor<2>> {
        let batch = Tensor::<2>::ones([1, 1], &Device::flex());
        let evaluator = Evaluator::new()
            .with_data(move |_epoch| vec![batch.clone()])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(0.1)
            .with_loss(|model: &Self, x: &Tensor<2>| model.forward(x.clone()).mean());
        Compressor::from_model(Self::new(2.0, 3.0), evaluator)
    }

    /// The total loss of the first step of `chain`.
    fn total(chain: Compressor<Self, Tensor<2>>) -> f64 {
        let compressed = chain.compress(Budget::steps(1)).unwrap();
        let record = compressed.history().steps[0];
        assert_eq!(record.task_loss, 6.0);
        record.loss
    }
}

/// Makes `factor * loss + offset` of the loss.
struct Affine {
    factor: f32,
    offset: f32,
}

impl Algorithm<Numbers, Tensor<2>> for Affine {
    fn name(&self) -> &'static str {
        "Affine"
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &Tensor<2>,
        _run: Run<'_, Numbers>,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(loss * self.factor + self.offset)
    }
}

#[test]
fn losses_are_nested_newest_first() {
    let total = |affine: [(f32, f32); 2]| {
        let mut chain = Numbers::chain();
        for (factor, offset) in affine {
            chain.chain().push(Affine { factor, offset });
        }
        Numbers::total(chain)
    };
    // The newer one, 3 L + 10, is the inner one: 2 (3 * 6 + 10) + 1.
    assert_eq!(total([(2.0, 1.0), (3.0, 10.0)]), 57.0);
    // 3 (2 * 6 + 1) + 10.
    assert_eq!(total([(3.0, 10.0), (2.0, 1.0)]), 49.0);
}

#[test]
fn two_distillers_nest_newest_first() {
    // Hidden states of the student 2 and 6, of the teacher 1 and 2: distances 1 and 16.
    let distilled = |chain, layer: &str, lambda: f64, origin: f64| {
        let rules = format!(r#"[{{"op_names": ["{layer}"], "lambda": {lambda}}}]"#);
        DynamicLayerwiseDistiller::from_compressor(
            chain,
            ConfigList::from_json(&rules).unwrap(),
            &Numbers::new(1.0, 2.0),
            |teacher: &Numbers, x: &Tensor<2>| teacher.forward(x.clone()),
            DistillConfig::new(origin),
        )
        .unwrap()
    };
    let a_first = distilled(distilled(Numbers::chain(), "a", 0.25, 0.5), "b", 2.0, 0.25);
    // 0.5 (0.25 * 6 + 2 * 16) + 0.25 * 1.
    assert_eq!(Numbers::total(a_first), 17.0);
    let b_first = distilled(distilled(Numbers::chain(), "b", 2.0, 0.25), "a", 0.25, 0.5);
    // 0.25 (0.5 * 6 + 0.25 * 1) + 2 * 16.
    assert_eq!(Numbers::total(b_first), 32.8125);
}
