//! From a run to a file of the small model, with the dummy input of the run's evaluator.

use burn_compress::prelude::*;
use burn_compress::speedup::{Small, SpeedupExt};
use burn_compress_testkit::{half_of_the_channels, int8};
use burn_compress_tests::nets::{NetConfig, dummy_input, evaluator};

#[test]
fn a_result_is_cut_with_the_dummy_input_of_its_evaluator() {
    let net = || NetConfig::default().init(1);
    let run = || {
        let (rules, config) = (half_of_the_channels(), TaylorConfig::new(2));
        let pruner = TaylorPruner::new(net(), &rules, evaluator(4), config).unwrap();
        let chain = QatQuantizer::from_compressor(pruner, int8(), QatConfig::new()).unwrap();
        chain.compress(Budget::steps(4)).unwrap()
    };
    let small = run().speedup().unwrap();
    let given = ModelSpeedup::new(run(), dummy_input())
        .speedup_model()
        .unwrap();
    assert_eq!(small.report, given.report);
    assert_eq!(small.model.block.conv1.weight.dims()[0], 4);

    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("net.bin");
    small.save(&path).unwrap();
    let again = Small::load(net(), &path).unwrap();
    let device = Default::default();
    let (before, after) = (
        dummy_input().run(&small.model, &device),
        dummy_input().run(&again.model, &device),
    );
    assert_eq!(before, after);
}
