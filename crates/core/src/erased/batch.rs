//! A batch whose type is not known.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::ptr;
use std::rc::Rc;

/// A batch whose type is not known.
///
/// Clones are handles on one batch.
#[derive(Clone)]
pub struct AnyBatch(Rc<dyn Any>);

thread_local! {
    /// The batches that algorithms of a known type are looking at.
    static LENT: RefCell<Vec<AnyBatch>> = const { RefCell::new(Vec::new()) };
}

impl AnyBatch {
    /// Holds `batch`; one whose type is erased already stays as it is.
    pub fn new<I: 'static>(batch: I) -> Self {
        super::same(batch).unwrap_or_else(|batch| Self(Rc::new(batch)))
    }

    /// The batch as an `I`.
    ///
    /// # Panics
    ///
    /// It is none.
    pub fn get<I: 'static>(&self) -> &I {
        let itself = (self as &dyn Any).downcast_ref();
        let batch = itself.or_else(|| self.0.downcast_ref());
        batch.unwrap_or_else(|| panic!("the batch is no `{}`", std::any::type_name::<I>()))
    }

    /// Hands the batch as an `I` to `look`; [`lent`](Self::lent) finds it again meanwhile.
    pub(super) fn lend<I: 'static, R>(&self, look: impl FnOnce(&I) -> R) -> R {
        struct Lent;

        impl Drop for Lent {
            fn drop(&mut self) {
                LENT.with_borrow_mut(Vec::pop);
            }
        }

        LENT.with_borrow_mut(|lent| lent.push(self.clone()));
        let _lent = Lent;
        look(self.get())
    }

    /// The batch of unknown type that `batch` was lent from.
    pub(super) fn lent<I: 'static>(batch: &I) -> Option<Self> {
        LENT.with_borrow(|lent| {
            let mut lent = lent.iter().rev();
            let found = lent.find(|lent| {
                let own = lent.0.downcast_ref::<I>();
                own.is_some_and(|own| ptr::eq(own, batch))
            });
            found.cloned()
        })
    }
}

impl fmt::Debug for AnyBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyBatch").finish_non_exhaustive()
    }
}
