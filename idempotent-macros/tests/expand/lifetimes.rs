#[idempotent]
async fn handler<'a, 'b: 'a, T: 'a>(agent: Agent<'a, T>, body: Json<Cow<'_, str>>) -> Cow<'a, str>
where
    'b: 'a,
{
    agent.name()
}
