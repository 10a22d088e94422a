//! Reaching what hangs on a model: the ports of its wrappers and the simulations of its parameters.
//!
//! Burn's visitors and mappers see parameters only. [`Wrapper`](crate::Wrapper) and
//! [`Simulation`](crate::Simulation) therefore report themselves, while [`visit`] or [`edit`]
//! walks the model, to a thread-local listener that exists for that walk alone. A listener may walk
//! another model: findings of that one are not reported to it.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor};

use crate::simulate::space::TargetSpace;
use crate::simulate::wrapper::port::Ports;

/// Stop of a reading walk.
pub(crate) enum Seen<'a> {
    /// The ports of a wrapper.
    Wrapper(&'a Ports),
    /// The cell of a parameter's simulation.
    Simulation(&'a Arc<TargetSpace>),
}

/// Stop of an editing walk.
pub(crate) enum Edited<'a> {
    /// A wrapper: its path, its ports and the layer inside.
    Wrapper {
        path: &'a str,
        ports: &'a mut Ports,
        layer: &'a mut dyn Any,
    },
    /// The cell of a parameter's simulation.
    Simulation(&'a mut Arc<TargetSpace>),
}

type Reader = Box<dyn FnMut(Seen<'_>)>;
type Editor = Box<dyn FnMut(Edited<'_>)>;

thread_local! {
    static PATH: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
    static EDITOR: RefCell<Option<Editor>> = const { RefCell::new(None) };
}

/// Walks `model` and hands each finding and the growing `state` to `read`.
pub(crate) fn visit<M: Module, S: 'static>(
    model: &M,
    state: S,
    mut read: impl FnMut(&mut S, Seen<'_>) + 'static,
) -> S {
    let state = Rc::new(RefCell::new(state));
    let shared = state.clone();
    {
        let _guard = Guard::start();
        READER.set(Some(Box::new(move |seen| {
            read(&mut shared.borrow_mut(), seen)
        })));
        model.visit(&mut PathTracker);
    }
    into_inner(state)
}

/// Walks `model` and applies `change` to each finding.
pub(crate) fn edit<M: Module, S: 'static>(
    model: M,
    state: S,
    mut change: impl FnMut(&mut S, Edited<'_>) + 'static,
) -> (M, S) {
    let state = Rc::new(RefCell::new(state));
    let shared = state.clone();
    let model = {
        let _guard = Guard::start();
        EDITOR.set(Some(Box::new(move |found| {
            change(&mut shared.borrow_mut(), found)
        })));
        model.map(&mut PathTracker)
    };
    (model, into_inner(state))
}

fn into_inner<S>(state: Rc<RefCell<S>>) -> S {
    // The walk's guard has dropped the only other owner.
    Rc::try_unwrap(state)
        .ok()
        .expect("the listener is gone")
        .into_inner()
}

/// Called by a wrapper while it is visited.
pub(crate) fn report_wrapper(ports: &Ports) {
    with(&READER, |reader| reader(Seen::Wrapper(ports)));
}

/// Called by a simulation while it is visited.
pub(crate) fn report_simulation(space: &Arc<TargetSpace>) {
    with(&READER, |reader| reader(Seen::Simulation(space)));
}

/// Called by a wrapper while it is mapped.
pub(crate) fn offer_wrapper(ports: &mut Ports, layer: &mut dyn Any) {
    with(&EDITOR, |editor| {
        editor(Edited::Wrapper {
            path: &path(),
            ports,
            layer,
        })
    });
}

/// Called by a simulation while it is mapped.
pub(crate) fn offer_simulation(space: &mut Arc<TargetSpace>) {
    with(&EDITOR, |editor| editor(Edited::Simulation(space)));
}

fn with<F: ?Sized>(
    listener: &'static std::thread::LocalKey<RefCell<Option<Box<F>>>>,
    call: impl FnOnce(&mut F),
) {
    // Taken out, so that the listener itself can walk a model.
    if let Some(mut heard) = listener.take() {
        call(&mut heard);
        listener.set(Some(heard));
    }
}

fn path() -> String {
    PATH.with_borrow(|path| path.join("."))
}

/// Ends the walk however it ends, so that a panic leaves no listener behind, and goes on with the
/// walk around it.
struct Guard {
    path: Vec<String>,
    reader: Option<Reader>,
    editor: Option<Editor>,
}

impl Guard {
    fn start() -> Self {
        Self {
            path: PATH.take(),
            reader: READER.take(),
            editor: EDITOR.take(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        PATH.set(std::mem::take(&mut self.path));
        READER.set(self.reader.take());
        EDITOR.set(self.editor.take());
    }
}

struct PathTracker;

impl ModuleVisitor for PathTracker {
    fn enter_module(&mut self, name: &str, _container: &str) {
        PATH.with_borrow_mut(|path| path.push(name.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        PATH.with_borrow_mut(Vec::pop);
    }
}

impl ModuleMapper for PathTracker {
    fn enter_module(&mut self, name: &str, _container: &str) {
        PATH.with_borrow_mut(|path| path.push(name.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        PATH.with_borrow_mut(Vec::pop);
    }
}
