//! From a request to an answer: whole, streamed, or made in the background; and kept, where it is to be.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::inference::{self, Endpoint};
use crate::api::openai::responses::conversation;
use crate::api::openai::responses::item::{self, Item};
use crate::api::openai::responses::keeping::{self, Keeping};
use crate::api::openai::responses::maker::{Effective, Maker};
use crate::api::openai::responses::reference;
use crate::api::openai::responses::request::{Question, ResponseRequest};
use crate::api::openai::responses::truncation::{self, Cutting};
use crate::api::openai::service_tier;
use crate::auth::responses::OwnResponses;
use crate::auth::{AuthError, ModelUser, new_id};
use crate::error::Code;
use crate::generate::{GenerateError, GenerationEvent};
use crate::http::background::{Forgotten, Place, Work};
use crate::http::metered::Metered;
use crate::http::state::Models;
use crate::http::{ApiError, AppState, sse};
use crate::manager::ModelLease;

/// Its URL.
pub const PATH: &str = "/v1/responses";

const ENDPOINT: Endpoint = Endpoint { path: PATH, prompt: "input", usual_max_tokens: None };

/// Answers, in whichever way was asked for.
///
/// # Errors
/// For an unknown or busy model, a conversation that is not there, a full queue; and for a database that takes nothing.
pub async fn answer(
    app: &AppState,
    user: &ModelUser,
    request: ResponseRequest,
) -> Result<Response, ApiError> {
    if request.background {
        // Before anything is done: who has too much of it is refused.
        let place = app.background().place(user.caller().owner())?;
        let models = app.models(user).in_background();
        let (generation, maker, record) = begin(app, user, &models, new_id("resp"), &request).await?;
        let record = record.ok_or_else(ApiError::internal)?;
        return background(app, place, generation.watched(), maker, record).await;
    }
    let (generation, maker, record) = begin(app, user, &app.models(user), new_id("resp"), &request).await?;
    match record {
        record if request.stream => {
            let interruption = generation.interruption().clone();
            let events = inference::begun(generation.watched()).await?;
            Ok(sse::named_events(app, interruption, told(events, maker, record), error_event))
        }
        record => Ok(Json(whole(generation.watched(), maker, record).await?).into_response()),
    }
}

/// Answers whole, as a line of a batch, of this name.
///
/// # Errors
/// As [`answer`], and for other ways to answer.
pub async fn in_batch(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    name: &str,
    request: ResponseRequest,
) -> Result<Value, ApiError> {
    for (member, is_asked) in [("stream", request.stream), ("background", request.background)] {
        if is_asked {
            let message = format!("`{member}` is not supported: a batch has whole answers");
            return Err(ApiError::new(Code::UnsupportedParameter, message).or_param(member));
        }
    }
    let (generation, maker, record) = begin(app, user, models, format!("resp_{name}"), &request).await?;
    whole(generation.watched(), maker, record).await
}

async fn begin(
    app: &AppState,
    user: &ModelUser,
    models: &Models<'_>,
    id: String,
    request: &ResponseRequest,
) -> Result<(Metered, Maker, Option<Keeping>), ApiError> {
    let retention = keeping(request, app.settings().response_retention)?;
    inference::refuse_while_draining(app)?;
    let Asked { items, new } = asked(app, user, &request.question).await?;
    // Held until the generation holds it.
    let lease = models.lease(&request.question.model).await?;
    let effective = Effective::of(lease.defaults(), service_tier::used(request.priority, models));
    let maker = Maker::new(&id, request, effective, retention.is_some());
    let new = items[items.len() - new..].iter().enumerate();
    let record = retention.map(|retention| Keeping {
        responses: user.responses(),
        previous: request.question.previous.clone(),
        input: new.map(|(number, item)| item.to_json(&id, number)).collect(),
        id,
        retention,
    });
    if let Some(record) = &record {
        record.check_size(&maker)?;
    }
    let items = fitting(app, &lease, &request.question, items, request.max_output_tokens).await?;
    let generation = inference::start(app, models, vec![request.generate(&items)], ENDPOINT).await?;
    drop(lease);
    Ok((generation, maker, record))
}

/// How long the answer is kept; none: not at all.
fn keeping(request: &ResponseRequest, retention: Option<Duration>) -> Result<Option<Duration>, ApiError> {
    let refused = |name: &'static str| {
        let message = format!("`{name}` is not supported: this server keeps no answers");
        Err(ApiError::new(Code::UnsupportedParameter, message).or_param(name))
    };
    match retention {
        None if request.background => refused("background"),
        None if request.store == Some(true) => refused("store"),
        retention => Ok(retention.filter(|_| request.store.unwrap_or(true))),
    }
}

/// The conversation that a question goes on from, and what is new.
pub struct Asked {
    /// All of it, the oldest first.
    pub items: Vec<Item>,
    /// So many at the end are new.
    new: usize,
}

/// The conversation that the question goes on from, and what is new.
///
/// # Errors
/// 400 if it is not there, 409 while it goes on; 404 for an item that is referred to and is not there, 409 for one of an
/// answer that goes on; and for calls and outputs that do not belong together.
pub async fn asked(app: &AppState, user: &ModelUser, question: &Question) -> Result<Asked, ApiError> {
    const NAME: &str = "previous_response_id";
    let retention = app.settings().response_retention.unwrap_or_default();
    let mut items = Vec::new();
    if let Some(previous) = &question.previous {
        let chain = user.responses().chain(previous, retention).await.map_err(|error| match error {
            AuthError::NotFound(_) => {
                let message =
                    format!("`{NAME}` names a response that is not there, or goes on from one that is not");
                ApiError::new(Code::PreviousResponseNotFound, message).about(NAME)
            }
            other => other.into(),
        })?;
        for earlier in chain {
            if earlier.status.is_running() {
                return Err(reference::still_being_made(NAME, "a response"));
            }
            items.extend(item::read(earlier.input, "input")?);
            if let Value::Array(output) = earlier.body["output"].clone() {
                items.extend(item::read(output, "output")?);
            }
        }
    }
    let new = reference::resolved(&user.responses(), &question.input, &items, retention).await?;
    items.extend(new);
    conversation::check_calls(&items, question.input.len())?;
    Ok(Asked { items, new: question.input.len() })
}

/// As much of the conversation as fits the model's context, where it may be cut.
///
/// # Errors
/// For what is wrong with it besides its length.
pub async fn fitting(
    app: &AppState,
    lease: &ModelLease,
    question: &Question,
    items: Vec<Item>,
    max_output_tokens: Option<u32>,
) -> Result<Vec<Item>, ApiError> {
    if !question.is_cut() {
        return Ok(items);
    }
    let most = truncation::most_tokens(lease.spec.context_length, max_output_tokens);
    let mut cutting = Cutting::of(items);
    while let Some(items) = cutting.to_try() {
        let fits = match app.generator().prompt_tokens(lease, question.generate(&items)).await {
            Ok(tokens) => tokens <= most,
            Err(GenerateError::ContextLength { .. }) => false,
            Err(error) => return Err(ApiError::from(error).or_param(ENDPOINT.prompt)),
        };
        cutting.tell(fits);
    }
    Ok(cutting.into_left())
}

/// An error within a stream; whoever sends it gives it its number.
pub fn error_event(error: ApiError) -> Value {
    json!({"type": "error", "sequence_number": 0, "code": error.code().name(), "message": error.message(),
        "param": error.param()})
}

/// Waits for the whole answer.
async fn whole(
    mut generation: Metered,
    mut maker: Maker,
    record: Option<Keeping>,
) -> Result<Value, ApiError> {
    while let Some(event) = generation.next().await {
        maker.take(event?);
    }
    if let Some(record) = record {
        record.keep_made(&mut maker).await;
    }
    Ok(maker.body())
}

/// What is told of an answer while it is made. It is kept before its end is told: who hears that goes on from it.
fn told(
    events: impl Stream<Item = Result<GenerationEvent, ApiError>> + Send + 'static,
    mut maker: Maker,
    record: Option<Keeping>,
) -> impl Stream<Item = Result<Vec<Value>, ApiError>> + Send + 'static {
    maker.announce();
    let first = stream::iter([Ok(maker.events())]);
    let rest =
        stream::unfold((Box::pin(events), maker, record), |(mut events, mut maker, record)| async move {
            if !maker.status().is_running() {
                return None;
            }
            match events.next().await? {
                Ok(event) => maker.take(event),
                Err(error) => maker.fail(&error),
            }
            if !maker.status().is_running()
                && let Some(record) = &record
            {
                record.keep_made(&mut maker).await;
            }
            Some((Ok(maker.events()), (events, maker, record)))
        });
    first.chain(rest)
}

/// Begins to make an answer that goes on though the client leaves; tells how it stands, or all of it as it comes.
async fn background(
    app: &AppState,
    place: Place,
    generation: Metered,
    mut maker: Maker,
    record: Keeping,
) -> Result<Response, ApiError> {
    record.keep(&maker).await?;
    let (queued, interruption) = (maker.body(), generation.interruption().clone());
    maker.announce();
    let is_heard = maker.is_heard();
    let (id, responses, limit) = (record.id, record.responses, app.settings().request_timeout);
    let work = app.background().begin(place, &id.clone(), is_heard, move |work| async move {
        let mut maker = go_on(&work, (&id, &responses), generation, maker, limit).await;
        keeping::finish(&id, &responses, &maker).await;
        work.give_place_back();
        say(&work, maker.events());
    });
    if is_heard {
        return Ok(sse::named_events(app, interruption, followed(&work, 0), error_event));
    }
    Ok(Json(queued).into_response())
}

/// What somebody hears who follows it, without the first so many events.
pub fn followed(
    work: &Work,
    skipped: usize,
) -> impl Stream<Item = Result<Vec<Value>, ApiError>> + Send + 'static {
    let followed = work.clone();
    work.follow(skipped).map(move |text| match text.map(|text| serde_json::from_str(&text)) {
        Ok(Ok(event)) => Ok(vec![event]),
        Ok(Err(_)) => Err(ApiError::internal()),
        Err(Forgotten) => Err(forgotten(&followed)),
    })
}

/// What is said to those who want to hear what is not kept any longer.
pub fn forgotten(work: &Work) -> ApiError {
    const NAME: &str = "starting_after";
    // The events are numbered from 0.
    let last = work.forgotten().saturating_sub(1);
    let message = format!(
        "`{NAME}` must be {last} at least: the events up to that were too many to be kept. Without `stream` the response \
         is shown whole"
    );
    ApiError::new(Code::InvalidValue, message).or_param(NAME)
}

fn say(work: &Work, events: Vec<Value>) {
    work.say(events.into_iter().map(|event| event.to_string()));
}

/// Makes the answer. It waits as long as it must, and has so much time from when it is begun.
async fn go_on(
    work: &Work,
    (id, responses): (&str, &OwnResponses),
    mut generation: Metered,
    mut maker: Maker,
    limit: Duration,
) -> Maker {
    let mut deadline = None;
    loop {
        let event = tokio::select! {
            biased;
            () = work.cancelled() => {
                maker.cancel(generation.cancelled().await);
                return maker;
            }
            () = passed(deadline) => {
                maker.time_out(generation.timed_out().await);
                return maker;
            }
            event = generation.next() => event,
        };
        let was = maker.status();
        match event {
            Some(Ok(event)) => maker.take(event),
            Some(Err(error)) => maker.fail(&error),
            None => maker.fail(&ApiError::internal()),
        }
        if !maker.status().is_running() {
            return maker;
        }
        if was != maker.status() {
            deadline = Some(Instant::now() + limit);
            // Only shown; that it was taken back elsewhere is found with the next beat.
            let begun = responses.begun(id).await;
            if let Err(error) = begun {
                tracing::warn!(%error, "it cannot be written that an answer is being made");
            }
        }
        say(work, maker.events());
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
