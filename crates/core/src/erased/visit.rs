//! Visitors and mappers behind a pointer.
//!
//! The methods of Burn's visitors are generic over the number of dimensions, which no pointer can
//! call. A parameter passes the pointer as [`Any`] with its rank, by which its type is found again on
//! the other side.
//!
//! ```text
//! model --visit_float::<D>--> Erasing --(D, &dyn Any)--> Restoring --visit_float::<D>--> visitor
//! ```

use std::any::Any;

use burn::module::{Flag, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};

/// A visitor behind a pointer.
pub(super) trait VisitAny {
    fn float(&mut self, rank: usize, param: &dyn Any);
    fn int(&mut self, rank: usize, param: &dyn Any);
    fn bool(&mut self, rank: usize, param: &dyn Any);
    fn flag(&mut self, flag: &Param<Flag>);
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
}

/// A mapper behind a pointer: it is given and gives back a parameter of one type.
pub(super) trait MapAny {
    fn float(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any>;
    fn int(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any>;
    fn bool(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any>;
    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag>;
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
}

/// The visitor or mapper that a model sees.
pub(super) struct Erasing<'a, V: ?Sized>(pub &'a mut V);

/// The pointer to a visitor or mapper of Burn.
pub(super) struct Restoring<'a, V>(pub &'a mut V);

const OTHER: &str = "a parameter is of the type that it was erased from";

impl ModuleVisitor for Erasing<'_, dyn VisitAny + '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.float(D, param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.int(D, param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.bool(D, param);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.0.flag(flag);
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
}

impl ModuleMapper for Erasing<'_, dyn MapAny + '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        restored(self.0.float(D, Box::new(param)))
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        restored(self.0.int(D, Box::new(param)))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        restored(self.0.bool(D, Box::new(param)))
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.flag(flag)
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit(name, container);
    }
}

fn restored<T: 'static>(param: Box<dyn Any>) -> T {
    *param.downcast().expect(OTHER)
}

/// Calls `$call` with a constant in the place of a rank.
macro_rules! with_rank {
    ($rank:expr, $call:ident $arguments:tt) => {
        with_rank!(@ $rank, $call $arguments, 0 1 2 3 4 5 6 7 8)
    };
    (@ $rank:expr, $call:ident $arguments:tt, $($known:literal)+) => {
        match $rank {
            $($known => $call::<$known, _> $arguments,)+
            more => panic!("a parameter of {more} dimensions: Burn's optimizers take at most 8"),
        }
    };
}

impl<V: ModuleVisitor> VisitAny for Restoring<'_, V> {
    fn float(&mut self, rank: usize, param: &dyn Any) {
        fn visit<const D: usize, V: ModuleVisitor>(visitor: &mut V, param: &dyn Any) {
            visitor.visit_float::<D>(param.downcast_ref().expect(OTHER));
        }
        with_rank!(rank, visit(self.0, param))
    }

    fn int(&mut self, rank: usize, param: &dyn Any) {
        fn visit<const D: usize, V: ModuleVisitor>(visitor: &mut V, param: &dyn Any) {
            visitor.visit_int::<D>(param.downcast_ref().expect(OTHER));
        }
        with_rank!(rank, visit(self.0, param))
    }

    fn bool(&mut self, rank: usize, param: &dyn Any) {
        fn visit<const D: usize, V: ModuleVisitor>(visitor: &mut V, param: &dyn Any) {
            visitor.visit_bool::<D>(param.downcast_ref().expect(OTHER));
        }
        with_rank!(rank, visit(self.0, param))
    }

    fn flag(&mut self, flag: &Param<Flag>) {
        self.0.visit_flag(flag);
    }

    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
}

impl<T: ModuleMapper> MapAny for Restoring<'_, T> {
    fn float(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any> {
        fn map<const D: usize, T: ModuleMapper>(
            mapper: &mut T,
            param: Box<dyn Any>,
        ) -> Box<dyn Any> {
            Box::new(mapper.map_float::<D>(restored(param)))
        }
        with_rank!(rank, map(self.0, param))
    }

    fn int(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any> {
        fn map<const D: usize, T: ModuleMapper>(
            mapper: &mut T,
            param: Box<dyn Any>,
        ) -> Box<dyn Any> {
            Box::new(mapper.map_int::<D>(restored(param)))
        }
        with_rank!(rank, map(self.0, param))
    }

    fn bool(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any> {
        fn map<const D: usize, T: ModuleMapper>(
            mapper: &mut T,
            param: Box<dyn Any>,
        ) -> Box<dyn Any> {
            Box::new(mapper.map_bool::<D>(restored(param)))
        }
        with_rank!(rank, map(self.0, param))
    }

    fn flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.0.map_flag(flag)
    }

    fn enter(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }
}
