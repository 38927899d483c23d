//! The dataplane against a kernel in memory that watches what is done to it.

mod build;
mod histories;
mod kernel;
mod lookup;
mod maglev;
mod names;
mod overflow;
mod places;
mod policies;
mod redirects;
mod restart;
mod tables;
