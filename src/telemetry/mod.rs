//! Logs and metrics. Metric handles are owned by the code that updates them: there are no globals.

/// A structure of metrics, one for each field: its type, name and help, and what it begins as if that is not its default.
macro_rules! metrics {
    ($(#[$about:meta])* $vis:vis struct $group:ident {
        $($field:ident: $type:ty = $name:literal, $help:literal $(, $start:expr)?;)*
    }) => {
        $(#[$about])*
        $vis struct $group {
            $($field: $type,)*
        }

        impl $group {
            /// Registers them in this order.
            fn registered(registry: &mut prometheus_client::registry::Registry) -> Self {
                let metrics = Self { $($field: $crate::telemetry::metrics!(@ $($start)?),)* };
                $(registry.register($name, $help, metrics.$field.clone());)*
                metrics
            }
        }
    };
    (@) => { Default::default() };
    (@ $start:expr) => { $start };
}
use metrics;

pub mod counters;
pub mod log_limit;
mod log_lines;
pub mod logging;
pub mod members;
pub mod probe;
pub mod process;
pub mod runtime;
pub mod scrapes;
