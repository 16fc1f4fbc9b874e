// What a relying party's page does: ask its own server for a check, show the element, hand the token back.
const claims = document.getElementById("claims");

async function call(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.detail);
  return data;
}

function show(value) {
  claims.textContent = typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = {
    minimum_age: Number(document.getElementById("age").value),
    mode: document.getElementById("mode").value,
  };
  try {
    const { url, nonce } = await call("/demo/checks", wanted);
    const element = document.createElement("ageveil-check");
    element.setAttribute("src", url);
    element.addEventListener("ageveil-token", async ({ detail }) => {
      try {
        show(await call("/demo/redeem", { token: detail.token, nonce }));
      } catch (error) {
        show(error.message);
      }
    });
    document.getElementById("frame").replaceChildren(element);
    show("Waiting for the answer.");
  } catch (error) {
    show(error.message);
  }
});
