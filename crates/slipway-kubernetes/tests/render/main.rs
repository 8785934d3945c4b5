//! What is rendered, exported and read back, over a generated corpus and over files that people can look at.

mod checks;
mod corpus;
mod export;
mod golden;
mod scale;
mod schemas;
