/* Keeps the time left current. The server has rendered it by the database's clock; this only counts down
   from there, by the time that has passed on this machine, and decides nothing. */
"use strict";
(function () {
  const loaded = Date.now();

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function clock(milliseconds, day) {
    const total = Math.floor(milliseconds / 1000);
    const days = Math.floor(total / 86400);
    const hours = Math.floor(total / 3600) % 24;
    const minutes = Math.floor(total / 60) % 60;
    const tail = two(total % 60);
    if (days) {
      return days + " " + day + " " + hours + ":" + two(minutes) + ":" + tail;
    }
    return hours ? hours + ":" + two(minutes) + ":" + tail : minutes + ":" + tail;
  }

  function show(element) {
    const data = element.dataset;
    const left = Number(data.jitLeft) - (Date.now() - loaded);
    element.textContent = left > 0 ? clock(left, data.jitDay) : data.jitOver;
    element.classList.toggle("jit-soon", left > 0 && left < Number(data.jitSoon));
    element.classList.toggle("jit-over", left <= 0);
  }

  function tick() {
    document.querySelectorAll("[data-jit-left]").forEach(show);
  }

  document.addEventListener("DOMContentLoaded", function () {
    tick();
    setInterval(tick, 500);
  });
})();
