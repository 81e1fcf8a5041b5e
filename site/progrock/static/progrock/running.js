/** The title and the icon of the page say how many of the visitor's jobs run. */

/** Keep both up to date by this socket. */
export function showRunning(socket) {
  const title = document.title;
  const icon = document.querySelector("link[rel=icon]");
  const plain = icon.getAttribute("href");
  const tell = () => {
    const running = [...socket.jobs.values()].filter(({ complete }) => !complete).length;
    const address = running ? icon.dataset.running.replace("/0.svg", `/${running}.svg`) : plain;
    document.title = running ? `(${running}) ${title}` : title;
    if (icon.getAttribute("href") !== address) icon.setAttribute("href", address);
  };
  socket.addEventListener("job", tell);
  socket.addEventListener("snapshot", tell);
  tell(); // the snapshot may have come before this script
}
