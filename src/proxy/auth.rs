//! Who somebody is, for rules that ask: found out after a request is planned and before anything of it is done.
//!
//! What is to be done stands inside of the question ([`Gated`]), so that nothing can be done without its answer: neither by an
//! error, nor by another try, nor in another language.

mod basic;
mod known;
mod service;

pub use known::Known;
pub use service::Services;

use std::rc::Rc;
use std::sync::Arc;

use super::ask::Said;
use super::client::Client;
use super::failure::Failure;
use super::forward::Incoming;
use super::guard::guarded;
use super::plan::{Answer, Plan, Step};
use super::request::unless_given_up;
use super::worker::Worker;
use crate::route::Auth;
use crate::state::counters::Rejected;

/// A step that waits for the answer to a question.
#[derive(Debug)]
pub struct Gated {
    gate: Gate,
    then: Step,
}

#[derive(Debug)]
pub enum Gate {
    /// Nobody need be asked: this has been answered lately.
    Open { fields: Vec<u8> },
    /// A password has to be checked.
    Password(basic::Check),
    /// A service has to be asked.
    Service(service::Question),
    /// He has not said who he is.
    Closed(Arc<str>),
}

/// What came of a question.
pub enum Verdict {
    /// He may pass; these field lines are put into what the server gets.
    Pass(Vec<u8>),
    /// He has to say who he is, in this realm.
    Unknown(Arc<str>),
    /// The service has answered for itself.
    Said(Box<Said>),
}

/// What has to be known of a request before what its rule says is done; asked while its head is still borrowed.
pub fn gate(worker: &Worker, auth: &Auth, incoming: &Incoming<'_, '_>) -> Gate {
    match auth {
        Auth::Basic(users) => basic::gate(worker, users, incoming.head),
        Auth::Forward(url) => Gate::Service(service::question(worker, url, incoming)),
    }
}

impl Gate {
    /// Puts itself before a step.
    pub fn before(self, then: Step) -> Step {
        match self {
            Gate::Open { fields } => told(then, &fields),
            gate => Step::Gated(Box::new(Gated { gate, then })),
        }
    }
}

/// Asks, and gives the step that follows from the answer.
pub async fn pass(worker: &Rc<Worker>, client: &mut Client<'_, '_>, plan: &mut Plan, gated: Gated) -> Step {
    let Gated { gate, then } = gated;
    let asked = Box::pin(ask(worker, client, plan, gate));
    match guarded(asked).await.flatten() {
        Ok(Verdict::Pass(fields)) => told(then, &fields),
        Ok(Verdict::Unknown(realm)) => {
            plan.turned_away = Some(Rejected::Unauthorized);
            Step::Answer(Answer { status: 401, realm: Some(realm), ..Answer::default() })
        }
        Ok(Verdict::Said(said)) => {
            plan.turned_away = Some(Rejected::Unauthorized);
            Step::Said(said)
        }
        Err(failure) => Step::Fail(failure),
    }
}

async fn ask(worker: &Rc<Worker>, client: &mut Client<'_, '_>, plan: &Plan, gate: Gate) -> Result<Verdict, Failure> {
    let timer = client.timer;
    match gate {
        Gate::Open { fields } => Ok(Verdict::Pass(fields)),
        Gate::Closed(realm) => Ok(Verdict::Unknown(realm)),
        Gate::Password(check) => unless_given_up(&mut client.to, Box::pin(check.run(worker, timer))).await,
        Gate::Service(question) => {
            let limits = &plan.view.snapshot.config.limits;
            unless_given_up(&mut client.to, Box::pin(question.run(worker, limits, timer))).await
        }
    }
}

/// Puts field lines into the head that a server gets; of what is answered here nobody need be told.
fn told(mut step: Step, fields: &[u8]) -> Step {
    if let Step::Forward(forward) = &mut step
        && let Some(end) = forward.head.len().checked_sub(2)
    {
        // Before the empty line that ends the head.
        forward.head.splice(end..end, fields.iter().copied());
    }
    step
}
