//! Pruners, quantizers and distillers in one run: their order, what they share and what they leave
//! alone.

mod display;
mod evaluator;
mod fixtures;
mod order;
mod ratios;
mod sharing;
mod small;
mod teacher;
