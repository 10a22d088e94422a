//! Masks that follow another target's.

use burn_compress_core::target::Target;

use super::*;
use crate::Align;

fn follow() -> PruningSettings {
    PruningSettings {
        align: Some(Align {
            module_name: None,
            target_name: Target::param("weight"),
            dims: vec![0],
        }),
        ..Default::default()
    }
}

fn aligned(key: &str, source: &str, dims: &[usize], blocks: Blocks) -> MaskTarget<String> {
    MaskTarget::new(key.to_string(), blocks, follow()).with_align(source.to_string(), dims.to_vec())
}

#[test]
fn an_aligned_target_keeps_what_its_source_uses() -> Test {
    // Elements [[1, 0, 0], [0, 1, 0]] of the source: both rows are used, the last column is not.
    let weight = MaskTarget::new(
        "weight".to_string(),
        Blocks::elements(&[2, 3])?,
        threshold(1.0),
    )
    .with_scores(vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let targets = [
        aligned("bias", "weight", &[0], Blocks::elements(&[2])?),
        aligned("columns", "weight", &[1], Blocks::elements(&[3])?),
        aligned("same", "weight", &[0, 1], Blocks::elements(&[2, 3])?),
        aligned("any", "weight", &[], Blocks::new(&[4], &[-1])?),
        weight,
    ];
    assert_eq!(
        bits(&targets, DEFAULT)?,
        ["11", "110", "100010", "1", "100010"]
    );
    Ok(())
}

#[test]
fn an_alignment_finds_the_channel_dim_of_an_activation() -> Test {
    let activation = Blocks::new(&[4, 4, 4, 4], &[-1, 1, -1, -1])?;
    let targets = [
        target("conv", &[4.0, 1.0, 3.0, 2.0], 9, ratio(0.5)),
        aligned("output", "conv", &[0], activation),
    ];
    let masks = generate(&targets, DEFAULT)?;
    let (mask, shape) = masks["output"].expand_broadcast();
    assert_eq!((mask, shape), (vec![1.0, 0.0, 1.0, 0.0], vec![1, 4, 1, 1]));
    Ok(())
}

#[test]
fn alignments_can_be_chained_and_use_coarser_blocks() -> Test {
    let targets = [
        aligned("beta", "gamma", &[0], Blocks::elements(&[4])?),
        aligned("gamma", "conv", &[0], Blocks::new(&[4], &[2])?),
        target("conv", &[4.0, 1.0, 2.0, 3.0], 9, ratio(0.75)),
    ];
    // The first block of two has a kept channel in it, the second none.
    assert_eq!(bits(&targets, DEFAULT)?, ["1100", "10", "1000"]);
    Ok(())
}

#[test]
fn an_alignment_multiplies_with_a_threshold() -> Test {
    let mut bias = target("bias", &[0.1, 9.0, 9.0], 1, threshold(1.0));
    bias.settings.align = follow().align;
    let bias = bias.with_align("weight".to_string(), vec![0]);
    let targets = [target("weight", &[3.0, 2.0, 1.0], 5, ratio(0.34)), bias];
    assert_eq!(bits(&targets, DEFAULT)?, ["110", "010"]);
    Ok(())
}

#[test]
fn alignments_that_cannot_be_resolved_are_named() {
    let source = target("w", &[1.0, 2.0], 5, ratio(0.5));
    let vector = || Blocks::elements(&[2]).unwrap();
    let check = |targets: &[MaskTarget<String>], message: &str| {
        let error = bits(targets, DEFAULT).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    };
    check(
        &[aligned("b", "conv", &[0], vector())],
        "b: aligned to `conv`, which this pruner",
    );
    check(
        &[
            aligned("a", "b", &[0], vector()),
            aligned("b", "a", &[0], vector()),
        ],
        "a: aligned to `b`, which is itself aligned",
    );
    check(
        &[source.clone(), aligned("b", "w", &[2], vector())],
        "b: aligned to dims [2] of `w`, which has shape [2, 5]",
    );
    check(
        &[source.clone(), aligned("b", "w", &[1], vector())],
        "b: the mask of shape [5] from `w` does not fit the target of shape [2]",
    );
    check(
        &[source, MaskTarget::new("b".to_string(), vector(), follow())],
        "b: aligned to `weight`",
    );
}
