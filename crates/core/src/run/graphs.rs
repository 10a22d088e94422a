//! The graphs of one model, of one captured forward pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;
use crate::graph::{Captured, ChannelGraph};

/// Parameter dimensions of which whole heads are channels.
type Heads = BTreeSet<(String, usize)>;

/// The graphs of a model and a dummy input, which clones share: the forward pass is captured once, and
/// analysed once for each choice of heads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graphs {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    captured: Option<Arc<Captured>>,
    graphs: Vec<(Heads, Arc<ChannelGraph>)>,
}

impl Graphs {
    /// The forward pass, which `capture` captures the first time.
    pub(crate) fn captured(
        &self,
        capture: impl FnOnce() -> Result<Captured, Error>,
    ) -> Result<Arc<Captured>, Error> {
        if let Some(captured) = &self.known.lock().captured {
            return Ok(captured.clone());
        }
        let captured = Arc::new(capture()?);
        Ok(self.known.lock().captured.get_or_insert(captured).clone())
    }

    /// The graph without whole heads, if it was asked for before.
    pub(crate) fn known(&self) -> Option<Arc<ChannelGraph>> {
        self.known.lock().find(&Heads::new())
    }

    /// The graph with whole heads as channels along the parameter dimensions `heads`.
    pub(crate) fn graph(
        &self,
        heads: &Heads,
        capture: impl FnOnce() -> Result<Captured, Error>,
    ) -> Result<Arc<ChannelGraph>, Error> {
        if let Some(graph) = self.known.lock().find(heads) {
            return Ok(graph);
        }
        let captured = self.captured(capture)?;
        let graph = Arc::new(ChannelGraph::analyze_heads(&captured, heads)?);
        let mut known = self.known.lock();
        if let Some(graph) = known.find(heads) {
            return Ok(graph);
        }
        known.graphs.push((heads.clone(), graph.clone()));
        Ok(graph)
    }
}

impl Known {
    fn find(&self, heads: &Heads) -> Option<Arc<ChannelGraph>> {
        let mut graphs = self.graphs.iter();
        let found = graphs.find(|(of, _)| of == heads);
        found.map(|(_, graph)| graph.clone())
    }
}
