//! The operations of a forward pass, one file each: the floor below models and executors.
//!
//! A family ([`crate::model`]) emits a *plan*, a flat list of named [`Step`]s. An executor ([`crate::inference`]) runs it on a
//! device. They meet in this list, so that families and devices multiply without knowing of each other.
//!
//! A file of this folder says all there is to say about one operation:
//!
//! * its struct: the slots it reads and writes, and its parameters;
//! * [`Operation::check`]: which widths fit, asked once when a model is opened;
//! * [`Operation::run`]: what it means, in calls to [`Kernels`](bitnet_kernels::Kernels). With the scalar set that is the definition. The
//!   same code runs in the CPU's executor and in the replay of the cross-validation;
//! * its [`Unit`]: its name, and the cases by which one kernel set is compared with another.
//!
//! A new operation is one file here, its `mod` and one line in the list below. (A `mod` within the list would be hidden from
//! formatters and from mutation testing.) A device without a kernel for it refuses it by name.

mod batch;
mod cache;
mod cases;
mod shapes;
mod state;
#[cfg(test)]
mod tests;

pub mod add;
pub mod attention;
pub mod bias;
pub mod cache_append;
pub mod embed;
pub mod experts;
pub mod gate;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod positions;
pub mod rms_norm;
pub mod rope;
pub mod scale;
pub mod select_rows;
pub mod split;

pub use batch::{Batch, Span};
pub use cache::KvCache;
pub use cases::{BrokenContract, Cases, compare};
pub use experts::Expert;
pub use gate::Gating;
pub use rope::{RopeId, RopeSpec};
pub use shapes::{ShapeError, Shapes, Widths};
pub(crate) use state::{Memory, Workspace};
pub use state::{State, Tensors};

/// Index of a matrix of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixId(pub usize);

/// Index of a vector of a model: the weight of a norm, or a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorId(pub usize);

/// A buffer of activations, `[tokens][width]`; the plan says how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The residual stream, `[tokens][embedding_length]`.
    Residual,
    /// A normalised copy of the residual stream, or the output of a block before it is added back.
    Hidden,
    /// Queries, `[tokens][heads * head_dim]`; the attention writes its result over them.
    Query,
    /// Keys, `[tokens][kv_heads * head_dim]`.
    Key,
    /// Values, `[tokens][kv_heads * head_dim]`.
    Value,
    /// The gate of the feed-forward block, `[tokens][feed_forward_length]`; gated in place.
    Gate,
    /// The up projection, `[tokens][feed_forward_length]`.
    Up,
    /// What stands before its parts are told apart (queries, keys and values of one matrix), or between two steps of one part.
    Side,
    /// Logits of the experts, `[tokens][experts]`.
    Router,
    /// Logits, `[rows asked for][vocab]`.
    Logits,
}

impl Slot {
    /// Every slot, in the order of the executors' buffers.
    pub const ALL: [Self; 10] = [
        Self::Residual,
        Self::Hidden,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Gate,
        Self::Up,
        Self::Side,
        Self::Router,
        Self::Logits,
    ];

    /// Position in [`Slot::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// An operation on slots.
pub trait Operation {
    /// The slots that it reads and those that it writes. Operations on the cache of a layer name [`Slot::Key`] and
    /// [`Slot::Value`] for it.
    fn slots(&self) -> [Vec<Slot>; 2];

    /// The slot that holds a result which a trace shows under the step's name.
    fn result(&self) -> Option<Slot> {
        self.slots()[1].first().copied()
    }

    /// Whether the widths fit; sets those of the slots that it writes.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, shapes: &mut Shapes<'_>) -> Result<(), ShapeError>;

    /// Computes it for the rows at hand.
    fn run(&self, state: &mut State<'_>);
}

/// What is known of a kind of operation without a model.
#[derive(Debug)]
pub struct Unit {
    /// Its name in messages, e.g. `rms_norm`.
    pub name: &'static str,
    /// Computes examples on a kernel set, for [`compare`].
    pub cases: fn(&mut Cases<'_>),
}

macro_rules! operations {
    ($($module:ident::$name:ident,)*) => {
        $(pub use $module::$name;)*

        /// One operation of a plan.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $name($name),)*
        }

        impl Op {
            /// What every operation can be asked.
            pub fn as_operation(&self) -> &dyn Operation {
                match self { $(Self::$name(op) => op,)* }
            }

            /// Its kind.
            pub fn unit(&self) -> &'static Unit {
                match self { $(Self::$name(_) => &$module::UNIT,)* }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self {
                Self::$name(op)
            }
        })*

        /// Every kind of operation.
        pub static UNITS: &[&Unit] = &[$(&$module::UNIT,)*];
    };
}

operations! {
    embed::Embed,
    positions::Positions,
    rms_norm::RmsNorm,
    layer_norm::LayerNorm,
    linear::Linear,
    bias::Bias,
    scale::Scale,
    split::Split,
    rope::Rotate,
    cache_append::CacheAppend,
    attention::Attention,
    gate::Gate,
    gelu::Gelu,
    experts::Experts,
    add::Add,
    select_rows::SelectRows,
}

/// An operation and the name of its result (`blk.3.attn_norm`, after the tensor names of GGUF).
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Unique in the plan.
    pub name: String,
    /// What is done.
    pub op: Op,
}

impl Step {
    /// The slot that holds the result, if the step has one to look at.
    pub fn result(&self) -> Option<Slot> {
        self.op.as_operation().result()
    }
}
