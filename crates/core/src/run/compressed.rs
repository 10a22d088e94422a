//! Result of a run.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use indexmap::IndexMap;

use crate::Error;
use crate::erased::AnyModel;
use crate::graph::{ChannelGraph, ChannelId, CutFailure, DummyInput, Trial};
use crate::run::graphs::Graphs;
use crate::run::history::History;
use crate::run::obstacle::Obstacle;
use crate::simulate::attach::{self, Spaces};
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::simulate::sizes::set_sizes;
use crate::target::TargetId;

/// A compressed model: the model with its simulations, its masks and calibration, and the history
/// of the run.
#[derive(Clone, Debug)]
pub struct Compressed<M> {
    model: M,
    spaces: Spaces,
    history: History,
    skipped: Vec<Obstacle>,
    warnings: Vec<String>,
    dummy_input: Option<DummyInput<M>>,
    /// The graphs of the run, captured with that dummy input.
    graphs: Graphs,
    goals: IndexMap<TargetId, f64>,
}

impl Compressed<AnyModel> {
    pub(crate) fn new(model: AnyModel, history: History) -> Result<Self, Error> {
        // A snapshot: nothing that happens to the chain afterwards moves this result.
        let model = model.valid();
        let spaces = attach::spaces(&model);
        Ok(Self {
            model,
            spaces,
            history,
            skipped: Vec::new(),
            warnings: Vec::new(),
            dummy_input: None,
            graphs: Graphs::default(),
            goals: IndexMap::new(),
        })
    }

    pub(crate) fn with_skipped(mut self, skipped: Vec<Obstacle>) -> Self {
        self.skipped = skipped;
        self
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The result as that of an `M`, without a dummy input.
    pub(crate) fn into_typed<M: Module + 'static>(self) -> Compressed<M> {
        Compressed {
            model: self.model.into_typed(),
            spaces: self.spaces,
            history: self.history,
            skipped: self.skipped,
            warnings: self.warnings,
            dummy_input: None,
            graphs: Graphs::default(),
            goals: self.goals,
        }
    }

    /// The graphs of the run.
    pub(crate) fn graphs_of_run(&self) -> Graphs {
        self.graphs.clone()
    }
}

impl<M: Module + 'static> Compressed<M> {
    pub(crate) fn with_goals(mut self, goals: IndexMap<TargetId, f64>) -> Self {
        self.goals = goals;
        self
    }

    /// Keeps the graphs that were captured with the dummy input.
    pub(crate) fn with_graphs(mut self, graphs: Graphs) -> Self {
        self.graphs = graphs;
        self
    }

    /// Sets the dummy input of the model; the result of a run has that of its evaluator.
    pub fn with_dummy_input(mut self, dummy_input: DummyInput<M>) -> Self {
        self.dummy_input = Some(dummy_input);
        self.graphs = Graphs::default();
        self
    }

    /// The dummy input of the model, where the evaluator had one.
    pub fn dummy_input(&self) -> Option<&DummyInput<M>> {
        self.dummy_input.as_ref()
    }

    /// The model as it is simulated, in validation mode.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Gives the simulated model away.
    pub fn into_model(self) -> M {
        self.model
    }

    /// The masks of all pruners.
    pub fn masks(&self) -> Masks {
        attach::masks(&self.spaces)
    }

    /// Scales, zero points and ranges of all quantizers.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn calibration(&self) -> Result<Calibration, Error> {
        attach::calibration(&self.spaces)
    }

    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Record of each step.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Selected targets that the compressors have left as they are, see
    /// [`Compressor::skipped`](crate::Compressor::skipped).
    pub fn skipped(&self) -> &[Obstacle] {
        &self.skipped
    }

    /// Warnings of the construction of the chain, of its resumption and of the run, a sentence each; one
    /// of an algorithm begins with its name. All are logged as well. What was left out has a list of its
    /// own, [`skipped`](Self::skipped).
    ///
    /// None of a model that was put together [from parts](Self::from_parts).
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The sparsity that the algorithms of the run were [asked](crate::Algorithm::goals) for, by
    /// target; none of a model that was put together [from parts](Self::from_parts).
    pub fn goals(&self) -> &IndexMap<TargetId, f64> {
        &self.goals
    }

    /// The plain model with its raw parameters: neither masked nor quantized.
    pub fn unwrap_model(&self) -> M {
        attach::plain(self.any_model()).into_typed()
    }

    /// The model with its masks but without the simulated quantization.
    pub fn masked_model(&self) -> M {
        attach::masked(self.any_model()).into_typed()
    }

    /// The channels of the model and how they are coupled: those that the run has found where
    /// `dummy_input` is the run's.
    ///
    /// # Errors
    ///
    /// The forward pass cannot be captured, or holds an operation without a rule.
    pub fn graph(&self, dummy_input: &DummyInput<M>) -> Result<Arc<ChannelGraph>, Error> {
        self.analyzed(dummy_input, &BTreeSet::new())
    }

    /// As [`graph`](Self::graph), with [whole heads](ChannelGraph::analyze_heads) as channels along the
    /// parameter dimensions `heads`.
    ///
    /// # Errors
    ///
    /// Those of [`graph`](Self::graph), and dimensions that no reshape takes apart.
    pub fn graph_of_heads(
        &self,
        dummy_input: &DummyInput<M>,
        heads: &BTreeSet<(String, usize)>,
    ) -> Result<Arc<ChannelGraph>, Error> {
        self.analyzed(dummy_input, heads)
    }

    fn analyzed(
        &self,
        dummy_input: &DummyInput<M>,
        heads: &BTreeSet<(String, usize)>,
    ) -> Result<Arc<ChannelGraph>, Error> {
        let own = self.dummy_input.as_ref();
        let graphs = match own.is_some_and(|own| own.is_clone_of(dummy_input)) {
            true => self.graphs.clone(),
            false => Graphs::default(),
        };
        let dummy_input = AnyModel::dummy_input(dummy_input);
        graphs.graph(heads, || attach::capture(&self.any_model(), &dummy_input))
    }

    /// Why the forward pass does not follow where the channels `removed` of `graph` are cut off, found
    /// by a trial that computes nothing; `None` if it does.
    pub fn trial_cut(
        &self,
        dummy_input: &DummyInput<M>,
        graph: &ChannelGraph,
        removed: &BTreeSet<ChannelId>,
    ) -> Option<CutFailure> {
        let dummy_input = AnyModel::dummy_input(dummy_input);
        let plain = attach::plain(self.any_model().valid());
        let trial = Trial::new(plain, &dummy_input, graph, set_sizes);
        trial
            .failures(std::slice::from_ref(removed))
            .pop()
            .flatten()
    }

    /// The same result of a model whose type is not known.
    pub fn erased(&self) -> Compressed<AnyModel> {
        Compressed {
            model: self.any_model(),
            spaces: self.spaces.clone(),
            history: self.history.clone(),
            skipped: self.skipped.clone(),
            warnings: self.warnings.clone(),
            dummy_input: self.dummy_input.as_ref().map(AnyModel::dummy_input),
            graphs: self.graphs.clone(),
            goals: self.goals.clone(),
        }
    }

    fn any_model(&self) -> AnyModel {
        AnyModel::new(self.model.clone())
    }
}
