//! Shapes of inputs and outputs.

use burn::module::Module;
use burn_compress_core::{Chain, TargetId, tap};
use indexmap::IndexMap;

use super::selected::Item;
use crate::PruningError;

/// The shapes that the inputs and outputs among `items` have in a pass of the dummy input, batch
/// included; none without a dummy input.
pub(super) fn port_shapes<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
    items: &[Item],
) -> Result<IndexMap<TargetId, Vec<usize>>, PruningError> {
    let targets = items.iter().map(Item::id);
    let targets: Vec<TargetId> = targets.filter(|id| !id.target.is_param()).collect();
    let Some(dummy) = chain.evaluator().dummy_input() else {
        return Ok(IndexMap::new());
    };
    if targets.is_empty() {
        return Ok(IndexMap::new());
    }
    let (snapshot, spaces) = tap(chain.model(), &targets)?;
    let device = snapshot.devices().first().cloned().unwrap_or_default();
    dummy.run(&snapshot, &device);
    let spaces = targets.into_iter().zip(spaces);
    let shapes = spaces.filter_map(|(id, space)| Some((id, space.shape()?)));
    Ok(shapes.collect())
}
