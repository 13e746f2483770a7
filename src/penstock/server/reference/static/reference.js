"use strict";

// Shows /openapi.json; asks for a key where that needs one. The key stays in this page, and goes with it.
(() => {
  const form = document.querySelector("#key");
  const token = document.querySelector("#token");
  const trouble = document.querySelector("#trouble");

  const tell = (text) => {
    trouble.textContent = text;
    trouble.hidden = !text;
  };

  const draw = (spec, key) => {
    document.title = `${spec.info.title} ${spec.info.version}`;
    const page = SwaggerUIBundle({
      spec,
      dom_id: "#reference",
      deepLinking: true,
      docExpansion: "list",
      tryItOutEnabled: true,
      validatorUrl: null,
      onComplete: () => key && page.preauthorizeApiKey("bearer", key),
    });
  };

  const load = async (key) => {
    const answer = await fetch("openapi.json", {
      headers: key ? { authorization: `Bearer ${key}` } : {},
    });
    const told = await answer.json();
    form.hidden = answer.status !== 401 && answer.status !== 403;
    if (answer.ok) {
      tell("");
      draw(told, key);
    } else {
      tell(key || form.hidden ? told.error : "");
      token.focus();
    }
  };

  const start = (key) => load(key).catch((error) => tell(`The server does not answer: ${error.message}`));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(token.value.trim());
  });
  start("");
})();
