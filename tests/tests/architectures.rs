//! Architectures that were not written for pruning: one error lists all that cannot be pruned, and
//! what is left is cut exactly.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress_tests::zoo::{Bert, ConvNext, DenseNet, ShuffleNet, Vit};

const BOTH: &str = r#""Conv2d", "Linear""#;

type Chain<M> = Compressor<M, ()>;

/// A model with an input for it.
struct Case<M: Module> {
    model: M,
    dummy: DummyInput<M>,
    /// The types of the layers to prune.
    types: &'static str,
}

impl<M: Module + 'static> Case<M> {
    fn prune(&self, more: &str) -> Result<Chain<M>, Error> {
        let types = self.types;
        let rules = format!(r#"[{{"op_types": [{types}], "sparse_ratio": 0.5{more}}}]"#);
        let config = ConfigList::from_json(&rules).unwrap();
        let evaluator = Evaluator::new().with_dummy_input(self.dummy.clone());
        L1NormPruner::new(self.model.clone(), &config, evaluator, PrunerConfig::new())
    }

    /// Excludes what one error lists and cuts the rest, which no second error may follow. Returns
    /// how many layers were refused and how many parameters the cut removed.
    fn prune_after_one_round(&self) -> (usize, usize) {
        let refused = self.prune("").map(|chain| chain.algorithms()).unwrap_err();
        let Some(PruningError::Unprunable { obstacles }) = refused.downcast_ref() else {
            panic!("{refused}");
        };
        let mut layers: Vec<&str> = obstacles.iter().map(|o| o.target.layer.as_str()).collect();
        layers.dedup();
        assert!(
            obstacles
                .iter()
                .all(|o| !o.kind.is_empty() && !o.remedy.is_empty())
        );
        let chain = self.prune(&format!(", \"exclude_op_names\": {layers:?}"));
        let rest = chain.unwrap().compress(Budget::none()).unwrap();
        let skipped = self.prune(", \"on_unprunable\": \"skip\"").unwrap();
        assert_eq!(skipped.skipped(), obstacles);
        let skipped = skipped.compress(Budget::none()).unwrap();
        assert_eq!(rest.masks(), skipped.masks());
        let small = ModelSpeedup::new(rest, self.dummy.clone()).speedup_model();
        let small = small.unwrap();
        assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
        (
            layers.len(),
            self.model.num_params() - small.model.num_params(),
        )
    }
}

fn images<M>(model: M, side: usize, forward: fn(&M, Tensor<4>) -> Tensor<2>) -> Case<M>
where
    M: Module + 'static,
{
    let shape = [2, 1, side, side];
    let images = Tensor::<4>::random(shape, Distribution::Default, &Device::flex());
    Case {
        model,
        dummy: DummyInput::new(images, forward),
        types: BOTH,
    }
}

#[test]
fn a_vision_transformer() {
    let case = images(Vit::new(&Device::flex()), 4, Vit::forward);
    // What is left are the hidden channels of two MLPs: 8 of 16, with 8 + 1 + 8 parameters each.
    assert_eq!(case.prune_after_one_round(), (12, 2 * 8 * 17));
}

#[test]
fn bert() {
    let device = Device::flex();
    let tokens = Tensor::<2, Int>::from_data([[1, 5, 3, 2, 0], [4, 4, 9, 7, 11]], &device);
    let case = Case {
        model: Bert::new(&device),
        dummy: DummyInput::new(tokens, Bert::forward),
        types: r#""Linear""#,
    };
    // Two MLPs as in the vision transformer, and 4 of 8 channels of the pooler: 8 + 1 + 3.
    assert_eq!(case.prune_after_one_round(), (11, 2 * 8 * 17 + 4 * 12));
}

#[test]
fn convnext() {
    let case = images(ConvNext::new(&Device::flex()), 8, ConvNext::forward);
    // Hidden channels of two blocks in each stage: 8 of 16 between 4, 16 of 32 between 8.
    let removed = 2 * 8 * (4 + 1 + 4) + 2 * 16 * (8 + 1 + 8);
    assert_eq!(case.prune_after_one_round(), (11, removed));
}

#[test]
fn shufflenet() {
    let case = images(ShuffleNet::new(&Device::flex()), 6, ShuffleNet::forward);
    // The plain depthwise convolutions with what they read, and the head stay. Of the stem half of 8
    // channels go, and what is shuffled with them: half of the 4 of the last convolution of each
    // branch, and 2 columns of the first one.
    let stem = 4 * (9 + 4);
    let branches = 2 * (2 * (4 + 4) + 2 * 4);
    // The last convolution reads 4 of 8 and makes 6 of 12 channels.
    let last = 12 * 8 - 6 * 4 + 6 * (4 + 3);
    assert_eq!(case.prune_after_one_round(), (5, stem + branches + last));
}

#[test]
fn densenet() {
    let densenet = DenseNet::new(&[2, 3], 4, &Device::flex());
    let parameters = densenet.num_params();
    let case = images(densenet, 8, DenseNet::forward);
    let (refused, removed) = case.prune_after_one_round();
    assert_eq!(refused, 1);
    // A ratio of the concatenated channels; which layers give them, the weights decide.
    assert!(removed > parameters / 2, "{removed} of {parameters}");
}
